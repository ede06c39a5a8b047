"""MATLAB's imresize (bicubic, antialiased), byte for byte: the downscaling behind the published super-resolution numbers.

Two variants are in use, and they produce different test sets:

- `matlab_uint8`: imresize on a uint8 image. MATLAB resizes the rows, rounds to uint8, resizes the columns, and rounds again. The LR files
  of the EDSR and SwinIR bundles (Set5 ... Urban100, x2 to x4) were made this way.
- `matlab_double`: imresize on a double image with a single rounding at the end (im2double, imresize, im2uint8; also BasicSR's imresize).
  i-LN trains and tests on it. 10 to 15 % of the bytes differ from the first variant by 1 or 2.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Variant = Literal["matlab_uint8", "matlab_double"]

# Halves round up, as in MATLAB, even if float64 arithmetic leaves them just below .5.
_TIE = 1e-9


def imresize(image: NDArray[np.uint8], out_height: int, out_width: int, variant: Variant = "matlab_uint8") -> NDArray[np.uint8]:
    """Resize like MATLAB's bicubic imresize: cubic kernel with a = -0.5, widened for downscaling, borders mirrored.

    Args:
        image: [H, W, C] or [H, W], uint8.
        out_height: height of the result in pixels.
        out_width: width of the result in pixels.
        variant: when values are rounded; see the module's docstring.

    Returns:
        [out_height, out_width, C] (or without C), uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"imresize takes a uint8 image, found {image.dtype}")
    if variant not in ("matlab_uint8", "matlab_double"):
        raise ValueError(f"imresize variant {variant!r}: expected matlab_uint8 or matlab_double")
    rows: NDArray = _resize_rows(image, out_height)
    if variant == "matlab_uint8":
        rows = _round_to_uint8(rows)
    columns = _resize_rows(np.swapaxes(rows, 0, 1), out_width)
    return np.ascontiguousarray(np.swapaxes(_round_to_uint8(columns), 0, 1))


def _round_to_uint8(values: NDArray) -> NDArray[np.uint8]:
    return np.floor(values + 0.5 + _TIE).clip(0, 255).astype(np.uint8)


def _resize_rows(image: NDArray, out_size: int) -> NDArray[np.float64]:
    """Resize the first axis: each output row is a weighted sum of a few input rows."""
    weights, sources = _contributions(image.shape[0], out_size)
    shape = (-1, *[1] * (image.ndim - 1))
    image = np.ascontiguousarray(image, dtype=np.float64)  # once, instead of in each product
    out = np.zeros((out_size, *image.shape[1:]))
    for weight, source in zip(weights.T, sources.T, strict=True):
        taken = image[source]
        taken *= weight.reshape(shape)
        out += taken
    return out


@lru_cache(maxsize=64)  # the patches of a training run have few sizes
def _contributions(in_size: int, out_size: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return weights and input positions of the taps of each output position, both [out_size, taps]; each row of weights sums to 1."""
    ratio = out_size / in_size
    stretch = max(1.0, 1.0 / ratio)  # antialiasing: the kernel is widened for downscaling
    support = 4.0 * stretch
    centre = (np.arange(out_size) + 0.5) / ratio - 0.5
    first = np.floor(centre - support / 2).astype(np.intp)
    positions = first[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = _cubic((centre[:, None] - positions) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    mirrored = np.concatenate([np.arange(in_size), np.arange(in_size)[::-1]])  # the edge pixel is repeated
    return weights[:, used], mirrored[positions[:, used] % (2 * in_size)]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the cubic convolution kernel of Keys (1981) with a = -0.5; it is 0 beyond a distance of 2."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))
