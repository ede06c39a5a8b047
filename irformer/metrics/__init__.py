"""Metrics that compare a restored image with the ground truth."""

from irformer.metrics.full_reference import (
    MAE,
    METRICS,
    PSNR,
    PSNRB,
    RMSE,
    SSIM,
    SSIM_WINDOW,
    Image,
    Luma,
    luma,
    measure,
    psnr,
    psnr_b,
    psnr_y,
    ssim,
    ssim_y,
)
from irformer.metrics.metric import Metric, MetricTraits
from irformer.metrics.perceptual import DISTS, FLIP, LPIPS, MSSSIM, SSIMULACRA2, MetricUnavailableError

__all__ = [
    "DISTS",
    "FLIP",
    "LPIPS",
    "MAE",
    "METRICS",
    "MSSSIM",
    "PSNR",
    "PSNRB",
    "RMSE",
    "SSIM",
    "SSIMULACRA2",
    "SSIM_WINDOW",
    "Image",
    "Luma",
    "Metric",
    "MetricTraits",
    "MetricUnavailableError",
    "luma",
    "measure",
    "psnr",
    "psnr_b",
    "psnr_y",
    "ssim",
    "ssim_y",
]
