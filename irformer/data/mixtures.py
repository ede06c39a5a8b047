"""Mixtures of training sets, and the sampling probability of each image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from irformer.data.sources import TrainingImages

Draw = Literal["images", "area"]


class JoinedImages:
    """The concatenation of several training sets.

    Args:
        parts: the sets, all of the same scale.
        chances: sampling probability of each image, [N], summing to 1.
    """

    def __init__(self, parts: Sequence[TrainingImages], chances: NDArray[np.float64]) -> None:
        self.parts = list(parts)
        self.scale = parts[0].scale
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._cumulative = np.cumsum(chances)
        assert len(chances) == len(self)
        assert all(part.scale == self.scale for part in parts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the index of an image, by the sampling probabilities."""
        # The last cumulative sum may be less than 1 due to rounding; scaling by it keeps every draw in range.
        place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        return int(min(place, len(self) - 1))

    @property
    def has_lq(self) -> bool:
        """Whether all sets have degraded images on disk."""
        return all(part.has_lq for part in self.parts)

    def name(self, i: int) -> str:
        """Return the path of clean image i."""
        part, inner = self._find(i)
        return part.name(inner)

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in pixels, cropped to multiples of the scale."""
        part, inner = self._find(i)
        return part.size(inner)

    def whole_size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in its file, in pixels."""
        part, inner = self._find(i)
        return part.whole_size(inner)

    def fingerprint(self, i: int) -> str | None:
        """Return the fingerprint of clean image i, or None if it is not known."""
        part, inner = self._find(i)
        return part.fingerprint(inner)

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i, cropped to multiples of the scale: [H, W, 3], uint8."""
        part, inner = self._find(i)
        return part.hq(inner)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i as in its file: [H, W, 3], uint8."""
        part, inner = self._find(i)
        return part.whole_hq(inner)

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Return degraded image i: [H, W, 3], uint8; None if there is no file."""
        part, inner = self._find(i)
        return part.lq(inner)

    def _find(self, i: int) -> tuple[TrainingImages, int]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.parts[number], i - int(self._starts[number])


def chances(parts: Sequence[TrainingImages], shares: Sequence[float] | None, draw: Draw) -> NDArray[np.float64]:
    """Compute the sampling probability of each image.

    Args:
        parts: the sets.
        shares: relative share of samples from each set, in any unit; None treats all sets as one.
        draw: within a set (or all sets), `images` draws every image equally often, as loaders of whole images do; `area` draws images in
            proportion to their pixels, as results from cutting images into equal sub-images beforehand (BasicSR).

    Returns:
        [N], summing to 1, in the order of the sets.
    """
    weights = [np.array([np.prod(part.size(i)) if draw == "area" else 1 for i in range(len(part))], np.float64) for part in parts]
    if shares is not None:
        weights = [share * weight / weight.sum() for share, weight in zip(shares, weights, strict=True)]
    joined = np.concatenate(weights)
    return joined / joined.sum()
