"""PSNR and SSIM as the papers of the field measure them.

All take uint8 images, as they would be written to files: a network's output is clamped and rounded before it is measured. The border is
cropped first, then colour turns to Y, then everything is float64.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Image = NDArray[np.uint8]


def psnr(restored: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB over all channels together, peak 255; infinity for equal images."""
    return _psnr(restored.astype(np.float64), truth.astype(np.float64))


def ssim(restored: Image, truth: Image) -> float:
    """Structural similarity (Wang et al. 2004), 11x11 Gaussian window (sigma 1.5), valid region, mean over channels."""
    return _ssim(restored.astype(np.float64), truth.astype(np.float64))


def psnr_y(restored: Image, truth: Image) -> float:
    """PSNR in dB on the Y channel (`luma`) of RGB images [H, W, 3], peak 255 although Y spans 16 to 235."""
    return _psnr(luma(restored), luma(truth))


def ssim_y(restored: Image, truth: Image) -> float:
    """SSIM on the Y channel (`luma`) of RGB images [H, W, 3]."""
    return _ssim(luma(restored), luma(truth))


def luma(rgb: Image) -> NDArray[np.float64]:
    """Y of MATLAB's rgb2ycbcr (BT.601, studio range 16 to 235), not rounded: [H, W, 3] uint8 RGB to [H, W] float64."""
    return rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0 + 16.0


METRICS: dict[str, Callable[[Image, Image], float]] = {
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "psnr_rgb": psnr,
    "ssim_rgb": ssim,
    "psnr": psnr,
    "ssim": ssim,
}


def measure(restored: Image, truth: Image, names: tuple[str, ...], border: int = 0) -> dict[str, float]:
    """Metrics of a restored image against the true one.

    Args:
        restored: [H, W, C], uint8, RGB.
        truth: the same shape.
        names: of the metrics, keys of METRICS.
        border: pixels left out on each side.

    Raises:
        ValueError: the shapes differ, or nothing is left within the border.
    """
    if restored.shape != truth.shape:
        raise ValueError(f"restored image is {restored.shape}, the true one {truth.shape}: they must have one shape")
    if min(restored.shape[:2]) <= 2 * border:
        raise ValueError(f"an image of {restored.shape[1]}x{restored.shape[0]} has nothing within a border of {border}")
    inner = slice(border, -border or None)
    restored, truth = restored[inner, inner], truth[inner, inner]
    return {name: METRICS[name](restored, truth) for name in names}


def _psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    error = np.mean((a - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # These settings are the reference implementation's; the library's defaults (a 7x7 uniform window, sample covariances) are not.
    return float(
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2 if a.ndim == 3 else None
        )
    )
