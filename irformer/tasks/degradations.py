"""Degradations: generate degraded images from clean ones, in tests and in training.

Every degradation can degrade a test image (`test`), always to the same bytes. For training patches there are three kinds:

- `PatchDegradation` degrades uint8 patches as they are read. It declares a `margin` and a `grid`: a patch that is cropped with this many
  clean pixels around it, on multiples of the grid, has the same bytes as in the degraded whole image.
- `DeviceDegradation` degrades whole batches on the device of the network.
- Any other degradation requires files with degraded images.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, get_args, runtime_checkable

import cv2
import numpy as np
import torch
from annotated_types import Ge, Interval, Len
from numpy.typing import NDArray
from torch import Tensor

from irformer.imaging.resize import Variant, imresize

NoiseOrder = Literal["bgr", "rgb"]

# Degradation levels in configurations.
Sigma = Annotated[float, Interval(ge=0, le=255)]
Quality = Annotated[int, Interval(ge=1, le=100)]


class Degradation(Protocol):
    """Interface of degradations."""

    rules: frozenset[str]
    """Fields of the task's protocol that the degradation uses. A class without this attribute uses none."""

    def test(self, image: NDArray[np.uint8]) -> NDArray:
        """Degrade a test image [H, W, C]; returns uint8, or float32 in [0, 1] if the degraded image is not quantized."""
        ...


@runtime_checkable
class PatchDegradation(Protocol):
    """A degradation of training patches as they are read."""

    margin: int
    """Number of clean pixels around a patch on which its degraded pixels depend."""
    grid: int
    """Crops start and end on multiples of this number, or at the edges of the image; a multiple of the scale."""
    turned_first: bool
    """Whether flips and transposition precede the degradation, because it does not commute with them."""

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Degrade an image [H, W, C], or a crop that respects margin and grid."""
        ...


@runtime_checkable
class DeviceDegradation(Protocol):
    """A degradation of training batches on the device."""

    def degrade_batch(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """Degrade [B, C, H, W] in [0, 1]; the result for each sample depends only on the sample and its seed."""
        ...


class Downscale:
    """Bicubic downscaling by MATLAB's imresize.

    Args:
        scale: scale factor; height and width of images are multiples of it.
        variant: `matlab_uint8` (published test sets) or `matlab_double` (i-LN's data).
    """

    rules = frozenset({"lr"})
    turned_first = False  # like the published LR images, which are flipped together with the clean ones

    def __init__(self, scale: Annotated[int, Ge(1)], variant: Variant = "matlab_uint8") -> None:
        self.scale = scale
        self.variant = variant
        self.margin = 3 * scale  # the kernel extends 2 LR pixels to either side, 2.5 from a pixel's center
        self.grid = scale

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Downscale [H, W, C] to [H / scale, W / scale, C], uint8."""
        height, width = image.shape[:2]
        if height % self.scale or width % self.scale:
            raise ValueError(f"an image of {width}x{height} pixels is not a multiple of the scale {self.scale}: crop it first")
        return imresize(image, height // self.scale, width // self.scale, self.variant)

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Downscale as in `test`; there is no randomness."""
        return self.test(image)


class GaussianNoise:
    """White Gaussian noise, neither clipped nor quantized.

    Args:
        sigma: standard deviation in gray levels of 255 in training, or the ends of a range from which it is drawn for each sample.
        test_sigma: standard deviation in tests.
        order: channel order in which test noise is drawn: `bgr` (SwinIR and its successors) or `rgb` (Restormer). The order determines
            which of red and blue receives which noise; it does not affect gray images.
    """

    rules = frozenset({"noise", "sigma"})

    def __init__(self, sigma: Sigma | Annotated[Sequence[Sigma], Len(2, 2)], test_sigma: Sigma, order: NoiseOrder = "bgr") -> None:
        if order not in get_args(NoiseOrder):
            raise ValueError(f"task.protocol.noise={order}: expected {' or '.join(get_args(NoiseOrder))}")
        self.low, self.high = _ends("sigma", sigma)
        if self.low < 0 or test_sigma < 0:
            raise ValueError(f"sigma={sigma}, test_sigma={test_sigma}: expected 0 or more, in gray levels of 255")
        self.test_sigma = test_sigma
        self.order = order

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Add noise to [H, W, C], uint8; returns float32 in [0, 1].

        The published test code calls `numpy.random.seed(0)` before every image and draws in float64, pixel by pixel. A RandomState with
        this seed gives the same numbers; NumPy's newer Generator does not.
        """
        noise = np.random.RandomState(0).normal(0, self.test_sigma / 255, image.shape)
        if self.order == "bgr":
            noise = noise[..., ::-1]
        return (image.astype(np.float32) / 255 + noise).astype(np.float32)

    def degrade_batch(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """Add noise to [B, C, H, W] in [0, 1]; level and noise of each sample depend on its seed and the type of device."""
        noisy = torch.empty_like(clean)
        generator = torch.Generator(clean.device)
        for one, out, seed in zip(clean, noisy, seeds, strict=True):
            generator.manual_seed(seed)
            sigma = torch.empty((), device=clean.device).uniform_(self.low, self.high, generator=generator) / 255
            noise = torch.empty(one.shape, device=clean.device).normal_(generator=generator)
            torch.addcmul(one, noise, sigma, out=out)
        return noisy


class Jpeg:
    """JPEG compression by OpenCV (libjpeg-turbo): gray, or color with 4:2:0 chroma subsampling.

    Args:
        quality: quality in training, 1 to 100, or the ends (inclusive) of a range from which it is drawn for each patch.
        test_quality: quality in tests.
        channels: image channels, 1 or 3.
    """

    rules = frozenset({"quality"})
    turned_first = True  # the quantization tables are not symmetric, so JPEG cannot produce a transposed compressed image

    def __init__(self, quality: Quality | Annotated[Sequence[Quality], Len(2, 2)], test_quality: Quality, channels: Literal[1, 3]) -> None:
        low, high = _ends("quality", quality)
        if not (low >= 1 and high <= 100 and 1 <= test_quality <= 100):
            raise ValueError(f"quality={quality}, test_quality={test_quality}: expected 1 to 100")
        self.low, self.high = int(low), int(high)
        self.test_quality = test_quality
        # Blocks are 8x8; with 4:2:0 a chroma block covers 16x16, and the decoder interpolates between neighboring chroma values.
        self.margin, self.grid = (0, 8) if channels == 1 else (2, 16)

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode [H, W, C], uint8."""
        return self._compress(image, self.test_quality)

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Encode and decode [H, W, C], uint8, with a random quality."""
        return self._compress(image, int(rng.integers(self.low, self.high + 1)))

    @staticmethod
    def _compress(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if image.shape[2] == 1:
            _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., 0]), options)
            return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)[..., None]
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


class FromFiles:
    """A degradation that cannot be generated, such as rain: degraded images are read from files."""

    rules: frozenset[str] = frozenset()

    def test(self, image: NDArray[np.uint8]) -> NDArray:
        """Raise an error; callers check beforehand that all images have degraded files."""
        raise ValueError("this degradation cannot be generated: expected files with degraded images")


def _ends(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """Return the ends of a range; both are equal for a single value."""
    low, high = value if isinstance(value, Sequence) else (value, value)
    if low > high:
        raise ValueError(f"{name}=[{low},{high}]: expected the smaller value first")
    return low, high
