"""Degradations: a clean uint8 image and a random generator to a degraded image, and nothing else.

Each states its `margin`: so many clean pixels around a patch (at least) decide the patch's degraded pixels, so that a patch cut out with
its margin degrades to the very bytes of the whole image.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from irformer.resize import Variant, imresize


class Degradation(Protocol):
    """What a task does to a clean image."""

    @property
    def margin(self) -> int:
        """Clean pixels around a patch that its degraded pixels depend on; a multiple of the scale."""
        ...

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray:
        """Degrade an image [H, W, C]: uint8, or float32 in units of [0, 1] where the degraded image is not quantised."""
        ...


class Downscale:
    """Bicubic downscaling by MATLAB's imresize.

    Args:
        scale: factor; the sides of the image are multiples of it.
        variant: `matlab_uint8` (published test sets) or `matlab_double` (i-LN's data).
    """

    def __init__(self, scale: int, variant: Variant = "matlab_uint8") -> None:
        self.scale = scale
        self.variant = variant

    @property
    def margin(self) -> int:
        """The kernel reaches 2 LR pixels to either side, 2.5 from a pixel's centre; rounded up to 3."""
        return 3 * self.scale

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """[H, W, C] to [H / scale, W / scale, C], uint8."""
        height, width = image.shape[:2]
        if height % self.scale or width % self.scale:
            raise ValueError(f"an image of {width}x{height} is no multiple of the scale {self.scale}: crop it first")
        return imresize(image, height // self.scale, width // self.scale, self.variant)
