"""Degradations: from clean images to degraded ones, in tests and in training, and nothing else.

Every degradation can degrade a test image (`test`), always to the same bytes. How it degrades training patches tells its kind:

- `PatchDegradation` works on uint8 patches while they are read. It states its `margin` and `grid`: a patch that is cut out with so many
  clean pixels around it, on multiples of the grid, degrades to the very bytes of the whole image.
- `DeviceDegradation` works on whole batches where the network is.
- One that is neither exists in files alone.
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

# What a configuration may say: a level, or the two ends of a range.
Sigma = Annotated[float, Interval(ge=0, le=255)]
Quality = Annotated[int, Interval(ge=1, le=100)]


class Degradation(Protocol):
    """What a task does to a clean image."""

    rules: frozenset[str]
    """Fields of the task's protocol that it follows. A class may leave them out: it then follows none."""

    def test(self, image: NDArray[np.uint8]) -> NDArray:
        """Degrade a test image [H, W, C]: uint8, or float32 in units of [0, 1] where the degraded image is not quantised."""
        ...


@runtime_checkable
class PatchDegradation(Protocol):
    """Degrades training patches as they are read."""

    margin: int
    """Clean pixels around a patch that its degraded pixels depend on, at least."""
    grid: int
    """What is cut out starts and ends on multiples of this, or at the image's ends; a multiple of the scale."""
    turned_first: bool
    """Flips and transposition come before it, since it does not commute with them."""

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Degrade an image [H, W, C], or a part cut out by margin and grid."""
        ...


@runtime_checkable
class DeviceDegradation(Protocol):
    """Degrades training batches on the device."""

    def degrade_batch(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """Degrade [B, C, H, W] in units of [0, 1]; each sample from its own seed alone, whatever stands beside it."""
        ...


class Downscale:
    """Bicubic downscaling by MATLAB's imresize.

    Args:
        scale: factor; the sides of the image are multiples of it.
        variant: `matlab_uint8` (published test sets) or `matlab_double` (i-LN's data).
    """

    rules = frozenset({"lr"})
    turned_first = False  # as the published LR images, which are turned together with the clean ones

    def __init__(self, scale: Annotated[int, Ge(1)], variant: Variant = "matlab_uint8") -> None:
        self.scale = scale
        self.variant = variant
        self.margin = 3 * scale  # the kernel reaches 2 LR pixels to either side, 2.5 from a pixel's centre
        self.grid = scale

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, C] to [H / scale, W / scale, C], uint8."""
        height, width = image.shape[:2]
        if height % self.scale or width % self.scale:
            raise ValueError(f"an image of {width}x{height} is no multiple of the scale {self.scale}: crop it first")
        return imresize(image, height // self.scale, width // self.scale, self.variant)

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """As in tests: nothing is random."""
        return self.test(image)


class GaussianNoise:
    """White Gaussian noise, neither clipped nor quantised.

    Args:
        sigma: standard deviation in gray levels (of 255) in training, or the two ends of a range that it is drawn from for each image.
        test_sigma: in tests.
        order: of the colours in which the test noise is drawn: `bgr` (SwinIR and its lineage) or `rgb` (Restormer). Red and blue get
            each other's noise under the other order; without colours it has no meaning.
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
        """[H, W, C], uint8, to float32 in units of [0, 1].

        The published test code calls numpy.random.seed(0) before every image and draws in float64, pixel by pixel; a RandomState of its
        own with that seed gives the same numbers, numpy's newer Generator would not.
        """
        noise = np.random.RandomState(0).normal(0, self.test_sigma / 255, image.shape)
        if self.order == "bgr":
            noise = noise[..., ::-1]
        return (image.astype(np.float32) / 255 + noise).astype(np.float32)

    def degrade_batch(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """[B, C, H, W] in units of [0, 1]: level and noise of each sample from its seed; the numbers are the device's own."""
        noisy = torch.empty_like(clean)
        generator = torch.Generator(clean.device)
        for one, out, seed in zip(clean, noisy, seeds, strict=True):
            generator.manual_seed(seed)
            sigma = torch.empty((), device=clean.device).uniform_(self.low, self.high, generator=generator) / 255
            noise = torch.empty(one.shape, device=clean.device).normal_(generator=generator)
            torch.addcmul(one, noise, sigma, out=out)
        return noisy


class Jpeg:
    """JPEG compression by OpenCV (libjpeg-turbo): gray, or colour with 4:2:0 chroma.

    Args:
        quality: 1 to 100 in training, or the two ends of a range (both included) that it is drawn from for each patch.
        test_quality: in tests.
        channels: 1 or 3.
    """

    rules = frozenset({"quality"})
    turned_first = True  # the tables that quantise rows and columns differ: a compressed image turned is none that JPEG can give

    def __init__(self, quality: Quality | Annotated[Sequence[Quality], Len(2, 2)], test_quality: Quality, channels: Literal[1, 3]) -> None:
        low, high = _ends("quality", quality)
        if not (low >= 1 and high <= 100 and 1 <= test_quality <= 100):
            raise ValueError(f"quality={quality}, test_quality={test_quality}: JPEG has 1 to 100")
        self.low, self.high = int(low), int(high)
        self.test_quality = test_quality
        # Blocks are 8x8; with 4:2:0 a block of chroma covers 16x16, and the decoder blends each chroma value with its neighbours.
        self.margin, self.grid = (0, 8) if channels == 1 else (2, 16)

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, C], uint8, to the same shape: encoded and decoded."""
        return self._compress(image, self.test_quality)

    def degrade_patch(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """[H, W, C], uint8, to the same shape, with a quality of its own."""
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
    """A degradation that is found in files alone, as rain: degraded images lie beside the clean ones."""

    rules: frozenset[str] = frozenset()

    def test(self, image: NDArray[np.uint8]) -> NDArray:
        """Cannot be done; whoever holds an image without a degraded file says so before."""
        raise ValueError("this degradation is found in files alone")


def _ends(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """The two ends of a range, equal where it is a single value."""
    low, high = value if isinstance(value, Sequence) else (value, value)
    if low > high:
        raise ValueError(f"{name}=[{low},{high}]: expected the smaller value first")
    return low, high
