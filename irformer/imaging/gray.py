"""Conversion of color images to gray; confusing the two rules in use costs up to 0.8 dB (jiaxi-jiang/FBCNN, issue 7)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

GrayRule = Literal["matlab", "opencv"]


def to_gray(rgb: NDArray[np.uint8], rule: GrayRule) -> NDArray[np.uint8]:
    """Convert a decoded color image to gray: [H, W, 3] RGB to [H, W, 1], both uint8.

    Args:
        rgb: the image.
        rule: `matlab` is the rounded Y of rgb2ycbcr, 16 to 235 (SwinIR's JPEG tests); `opencv` is cvtColor's luma, 0 to 255. OpenCV's
            file readers round differently, so test images are read directly as gray (`irformer.imaging.images.read_gray`).
    """
    if rule == "matlab":
        # Pixels / 255 in float32, summed in BGR order, as in the published test code: 194 colors are ties, which this rounds up.
        red, green, blue = ((rgb[..., c].astype(np.float32) / np.float32(255)).astype(np.float64) for c in range(3))
        gray = (24.966 * blue + 128.553 * green + 65.481 * red + 16.0).round().astype(np.uint8)
    else:
        gray = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.uint8)
    return gray[..., None]


def gray_as_opencv_reads(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert the pixels of a TIFF or BMP file to gray, [H, W, 3] to [H, W, 1], as OpenCV's readers of these formats do.

    The weights are cvtColor's with 14 instead of 15 bits: one color in 400 differs by one level.
    """
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return ((red * 4899 + green * 9617 + blue * 1868 + (1 << 13)) >> 14).astype(np.uint8)[..., None]
