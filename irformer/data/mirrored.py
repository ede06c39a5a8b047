"""Reflection padding of training images that are smaller than the patch."""

import numpy as np
from numpy.typing import NDArray

from irformer.data.sources import TrainingImages


class MirroredImages:
    """A training set whose images are padded to at least `side` pixels in height and width.

    Smaller images are extended to the right and at the bottom by reflection with the edge pixel repeated, as in Restormer's data loader
    (arXiv 2111.09881), whose patches of 384 pixels are larger than the images of BSDS500.

    Args:
        images: the training set.
        side: minimum height and width of clean images after padding, in pixels; a multiple of the scale.
    """

    def __init__(self, images: TrainingImages, side: int) -> None:
        self.images = images
        self.scale = images.scale
        self.side = side
        assert side % self.scale == 0

    def __len__(self) -> int:
        return len(self.images)

    def name(self, i: int) -> str:
        """Return the path of image i."""
        return self.images.name(i)

    @property
    def has_lq(self) -> bool:
        """Whether degraded images are read from disk."""
        return self.images.has_lq

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in pixels, after padding."""
        height, width = self.images.size(i)
        return max(height, self.side), max(width, self.side)

    def whole_size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in its file, in pixels."""
        return self.images.whole_size(i)

    def fingerprint(self, i: int) -> str | None:
        """Return the fingerprint of the image in the file."""
        return self.images.fingerprint(i)

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the index of an image from the underlying set."""
        return self.images.draw(rng)

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i after padding: [H, W, 3], uint8."""
        return self._padded(self.images.hq(i), self.side)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i as in its file: [H, W, 3], uint8."""
        return self.images.whole_hq(i)

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Return degraded image i from disk: [H / scale, W / scale, 3], uint8; None if there is no file."""
        image = self.images.lq(i)
        return None if image is None else self._padded(image, self.side // self.scale)

    @staticmethod
    def _padded(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        missing = [max(0, side - length) for length in image.shape[:2]]
        if missing == [0, 0]:
            return image
        return np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
