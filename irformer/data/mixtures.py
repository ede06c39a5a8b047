"""Several training sets as one, and how often a sample is drawn from each image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from irformer.data.sources import TrainingImages

Draw = Literal["images", "area"]


class JoinedImages:
    """The images of several sets, numbered one set after the other.

    Args:
        parts: the sets, all of one scale.
        chances: of each image, [N], adding up to 1.
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
        """The number of a random image, each with its chance."""
        # The last sum may fall short of 1 by a rounding; scaled by it, no draw lies beyond the last image.
        place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        return int(min(place, len(self) - 1))

    @property
    def has_lq(self) -> bool:
        """Whether all sets have degraded images on disk."""
        return all(part.has_lq for part in self.parts)

    def name(self, i: int) -> str:
        """The path of clean image i."""
        part, inner = self._find(i)
        return part.name(inner)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        part, inner = self._find(i)
        return part.size(inner)

    def whole_size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in its file, in pixels."""
        part, inner = self._find(i)
        return part.whole_size(inner)

    def fingerprint(self, i: int) -> str | None:
        """The fingerprint of clean image i, where it is known."""
        part, inner = self._find(i)
        return part.fingerprint(inner)

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i, cut to multiples of the scale: [H, W, 3], uint8."""
        part, inner = self._find(i)
        return part.hq(inner)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i as in its file: [H, W, 3], uint8."""
        part, inner = self._find(i)
        return part.whole_hq(inner)

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Degraded image i: [H, W, 3], uint8; None where there is no file."""
        part, inner = self._find(i)
        return part.lq(inner)

    def _find(self, i: int) -> tuple[TrainingImages, int]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.parts[number], i - int(self._starts[number])


def chances(parts: Sequence[TrainingImages], shares: Sequence[float] | None, draw: Draw) -> NDArray[np.float64]:
    """The chance of each image.

    Args:
        parts: the sets.
        shares: of the samples that come from each set, in any unit; None joins the sets into one.
        draw: within a set (or the joined sets) `images` takes all images alike, as loaders of whole images do; `area` takes them in
            proportion to their pixels, as it comes about where images are cut into equal sub-images beforehand (BasicSR).

    Returns:
        [N], adding up to 1, the sets one after the other.
    """
    weights = [np.array([np.prod(part.size(i)) if draw == "area" else 1 for i in range(len(part))], np.float64) for part in parts]
    if shares is not None:
        weights = [share * weight / weight.sum() for share, weight in zip(shares, weights, strict=True)]
    joined = np.concatenate(weights)
    return joined / joined.sum()
