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

__all__ = [
    "MAE",
    "METRICS",
    "PSNR",
    "PSNRB",
    "RMSE",
    "SSIM",
    "SSIM_WINDOW",
    "Image",
    "Luma",
    "Metric",
    "MetricTraits",
    "luma",
    "measure",
    "psnr",
    "psnr_b",
    "psnr_y",
    "ssim",
    "ssim_y",
]
