"""Full-reference metrics as defined in the literature: PSNR, SSIM and PSNR-B, and two errors in gray levels.

All metrics take uint8 images, as written to files: a network's output is clamped and rounded before it is measured. The border is
cropped first, then color is converted to Y, then everything is computed in float64.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from irformer.metrics.metric import Metric

Image = NDArray[np.uint8]
Luma = Literal["exact", "rounded"]

SSIM_WINDOW = 11
"""Side of the SSIM window in pixels, and therefore of the smallest image that SSIM accepts."""


def psnr(restored: Image, truth: Image) -> float:
    """Compute the peak signal-to-noise ratio in dB over all channels, with peak 255; infinity for equal images."""
    return _psnr(restored.astype(np.float64), truth.astype(np.float64))


def ssim(restored: Image, truth: Image) -> float:
    """Compute structural similarity (Wang et al. 2004): 11x11 Gaussian window (sigma 1.5), valid region, mean over channels."""
    return _ssim(restored.astype(np.float64), truth.astype(np.float64))


def psnr_y(restored: Image, truth: Image, rule: Luma = "exact") -> float:
    """Compute PSNR in dB on the Y channel (`luma`) of RGB images [H, W, 3], with peak 255 although Y spans 16 to 235."""
    return _psnr(luma(restored, rule), luma(truth, rule))


def ssim_y(restored: Image, truth: Image, rule: Luma = "exact") -> float:
    """Compute SSIM on the Y channel (`luma`) of RGB images [H, W, 3]."""
    return _ssim(luma(restored, rule), luma(truth, rule))


def psnr_b(restored: Image, truth: Image) -> float:
    """Compute PSNR-B in dB, which penalizes blocking artifacts (Yim and Bovik 2011), averaged over the channels of [H, W, C].

    The blocking term, measured in the restored image alone, is added to the mean squared error: how much more pixels differ across the
    edges of 8x8 blocks than between other neighbors. The numbers of neighbors are those of the published code, which counts one block edge
    for each whole block except the last, even if a partial block follows.
    """
    a, b = (image.astype(np.float64) / 255 for image in (restored, truth))
    a, b = (image[..., None] if image.ndim == 2 else image for image in (a, b))
    errors = ((a - b) ** 2).mean((0, 1)) + _blocking(a)
    with np.errstate(divide="ignore"):
        return float(np.mean(10 * np.log10(1 / errors)))


def luma(rgb: Image, rule: Luma = "exact") -> NDArray[np.float64]:
    """Compute Y of MATLAB's rgb2ycbcr (BT.601, range 16 to 235): [H, W, 3] uint8 RGB to [H, W] float64.

    Args:
        rgb: the image.
        rule: `exact` does not round (super-resolution); `rounded` rounds, as MATLAB does for uint8 images (deraining).
    """
    y = rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0 + 16.0
    return np.floor(y + 0.5) if rule == "rounded" else y


class _OnChannels(Metric):
    """A metric of all channels or of Y.

    Args:
        on_y: measure the Y channel of RGB images.
    """

    def __init__(self, on_y: bool = False) -> None:
        self.on_y = on_y
        self.channels = (3,) if on_y else (1, 3)

    @property
    def name(self) -> str:
        """Name of the metric in messages."""
        return f"{type(self).__name__} on Y" if self.on_y else type(self).__name__


class PSNR(_OnChannels):
    """Peak signal-to-noise ratio in dB, with peak 255; infinity for equal images.

    Args:
        on_y: measure the Y channel of RGB images.
    """

    higher_is_better = True
    digits = 2
    unit = "dB"

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the metric over all channels."""
        return _psnr(restored.astype(np.float64), truth.astype(np.float64))


class SSIM(_OnChannels):
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window (sigma 1.5), valid region, mean over channels.

    Args:
        on_y: measure the Y channel of RGB images.
    """

    higher_is_better = True
    digits = 4
    smallest_side = SSIM_WINDOW

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the mean over the channels."""
        return _ssim(restored.astype(np.float64), truth.astype(np.float64))


class PSNRB(Metric):
    """PSNR-B in dB, which penalizes blocking artifacts (`psnr_b`)."""

    higher_is_better = True
    digits = 2
    unit = "dB"

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the mean over the channels."""
        return psnr_b(restored, truth)


class MAE(_OnChannels):
    """Mean absolute error in gray levels of 255, over all channels. Lower is better.

    Args:
        on_y: measure the Y channel of RGB images.
    """

    higher_is_better = False
    digits = 3
    unit = "gray levels"

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the metric over all channels."""
        return float(np.mean(np.abs(restored.astype(np.float64) - truth.astype(np.float64))))


class RMSE(_OnChannels):
    """Root mean square error in gray levels of 255, over all channels. Lower is better.

    Args:
        on_y: measure the Y channel of RGB images.
    """

    higher_is_better = False
    digits = 3
    unit = "gray levels"

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the metric over all channels."""
        return float(np.sqrt(np.mean((restored.astype(np.float64) - truth.astype(np.float64)) ** 2)))


METRICS: dict[str, Metric] = {
    "psnr_y": PSNR(on_y=True),
    "ssim_y": SSIM(on_y=True),
    "psnr_rgb": PSNR(),
    "ssim_rgb": SSIM(),
    "psnr": PSNR(),
    "ssim": SSIM(),
    "psnr_b": PSNRB(),
}
"""The built-in metrics, which a protocol can name without further configuration."""


def measure(restored: Image, truth: Image, metrics: Mapping[str, Metric], border: int = 0, luma_rule: Luma = "exact") -> dict[str, float]:
    """Compare a restored image with the ground truth.

    Args:
        restored: [H, W, C], uint8, RGB or gray.
        truth: ground truth of the same shape.
        metrics: metrics by name, such as `METRICS` or a subset.
        border: pixels to crop on each side.
        luma_rule: computation of Y for metrics on Y.

    Raises:
        ValueError: the shapes differ, or the border covers the whole image.
    """
    if restored.shape != truth.shape:
        raise ValueError(f"restored image has shape {restored.shape}, ground truth {truth.shape}: expected equal shapes")
    if min(restored.shape[:2]) <= 2 * border:
        raise ValueError(f"an image of {restored.shape[1]}x{restored.shape[0]} pixels is empty after cropping a border of {border}")
    inner = slice(border, -border or None)
    images: tuple[NDArray[Any], NDArray[Any]] = restored[inner, inner], truth[inner, inner]
    planes = images
    if any(metric.on_y for metric in metrics.values()):
        planes = luma(images[0], luma_rule)[..., None], luma(images[1], luma_rule)[..., None]
    return {name: float(metric(*(planes if metric.on_y else images))) for name, metric in metrics.items()}


def _psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    error = np.mean((a - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # The settings of the reference implementation; the library's defaults differ (a 7x7 uniform window, sample covariances).
    return float(
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2 if a.ndim == 3 else None
        )
    )


def _blocking(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the blocking effect factor of each channel of [H, W, C] in [0, 1]."""
    height, width, channels = image.shape
    at_edges, elsewhere = np.zeros(channels), np.zeros(channels)
    for axis in (0, 1):
        steps = (np.diff(image, axis=axis) ** 2).sum(1 - axis)  # for each pair of neighboring lines
        edges = np.arange(len(steps)) % 8 == 7
        at_edges += steps[edges].sum(0)
        elsewhere += steps[~edges].sum(0)
    count_at_edges = height * (width // 8 - 1) + width * (height // 8 - 1)
    count_elsewhere = height * (width - 1) + width * (height - 1) - count_at_edges
    if count_at_edges <= 0:  # smaller than two blocks
        return np.zeros(channels)
    excess = at_edges / count_at_edges - elsewhere / count_elsewhere
    return np.maximum(excess, 0) * np.log2(8) / np.log2(min(height, width))
