"""Training images that are smaller than the patch, continued by their own mirror image."""

import numpy as np
from numpy.typing import NDArray

from irformer.data.sources import TrainingImages


class MirroredImages:
    """A training set in which every image is at least `side` pixels high and wide, otherwise as it was.

    Smaller images go on to the right and below as their reflection, the pixel at the edge repeated, as Restormer's data loader has it
    (arXiv 2111.09881): its patches of 384 pixels are larger than the images of BSDS500.

    Args:
        images: the training set.
        side: height and width that every clean image then has at least, in pixels; a multiple of the scale.
    """

    def __init__(self, images: TrainingImages, side: int) -> None:
        self.images = images
        self.scale = images.scale
        self.side = side
        assert side % self.scale == 0

    def __len__(self) -> int:
        return len(self.images)

    def name(self, i: int) -> str:
        """The path of the file of image i."""
        return self.images.name(i)

    @property
    def has_lq(self) -> bool:
        """Whether the degraded images come from disk."""
        return self.images.has_lq

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, after mirroring."""
        height, width = self.images.size(i)
        return max(height, self.side), max(width, self.side)

    def whole_size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in its file, in pixels."""
        return self.images.whole_size(i)

    def fingerprint(self, i: int) -> str | None:
        """The fingerprint of the image in the file."""
        return self.images.fingerprint(i)

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image, as the set draws it."""
        return self.images.draw(rng)

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i, after mirroring: [H, W, 3], uint8."""
        return self._mirrored(self.images.hq(i), self.side)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i as in its file: [H, W, 3], uint8."""
        return self.images.whole_hq(i)

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Degraded image i from disk: [H / scale, W / scale, 3], uint8; None where there is no file."""
        image = self.images.lq(i)
        return None if image is None else self._mirrored(image, self.side // self.scale)

    @staticmethod
    def _mirrored(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        lacking = [max(0, side - length) for length in image.shape[:2]]
        if lacking == [0, 0]:
            return image
        return np.pad(image, ((0, lacking[0]), (0, lacking[1]), (0, 0)), mode="symmetric")
