"""Restoring an image in overlapping tiles, by the rule of SwinIR's test script: memory depends on the tile, not on the image."""

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irformer.errors import UserError
from irformer.evaluation.restorers import NetworkRestorer, NonFiniteOutputError, to_image, to_tensor
from irformer.models.interface import multiple_of

OVERLAP = 32
"""Default overlap of neighboring tiles in input pixels, that of SwinIR's test script."""

SMALLEST_TILE = 64
"""Side in pixels below which `auto` does not halve the tiles."""

# PyTorch and the libraries that it calls raise a RuntimeError with one of these if an allocation fails.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED", "bad_alloc", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the host or of a device is exhausted."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY))


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where the tiles along one axis start: every `tile - overlap` pixels, with the last tile aligned to the end."""
    return [*range(0, size - tile, tile - overlap), size - tile]


class TiledRestorer:
    """Restores an image in overlapping tiles, whose outputs are averaged before they are rounded.

    As in SwinIR's test script, the whole image is padded to the network's multiple, tiles are `tile - overlap` pixels apart, and the last
    ones are aligned to the right and bottom border. A tile is cut to the image where the image is smaller, and an image that fits into
    one tile is restored as a whole. Rows are rounded as soon as no further tile covers them, so that memory holds a single row of tiles.
    Networks that normalize over the whole image, such as those with i-LN, normalize over each tile instead.

    Args:
        restorer: restores whole images; tiles use its network, padding and device.
        tile: side of a tile in input pixels, a multiple of the network's `size_multiple`. `auto` first restores the image as a whole;
            while memory is exhausted, it halves the tile, down to `SMALLEST_TILE`.
        overlap: overlap of neighboring tiles in input pixels.

    Raises:
        UserError: the tile is not a multiple of the network's, or not larger than the overlap.
    """

    def __init__(self, restorer: NetworkRestorer, tile: int | Literal["auto"], overlap: int = OVERLAP) -> None:
        self.restorer = restorer
        self.tile = tile
        self.overlap = overlap
        self._scale: Any = restorer.network.scale
        self._multiple = multiple_of(restorer.network)
        if overlap < 0:
            raise UserError(f"overlap {overlap}: expected 0 or more pixels")
        if tile != "auto":
            self._require_suitable(tile)
        self._smallest = self._rounded_up(max(SMALLEST_TILE, overlap + 1))
        # What `auto` has learned: the pixels of the smallest image that was too large, and a tile that was not.
        self._too_large = math.inf
        self._fitting: int | None = None

    def _require_suitable(self, tile: int) -> None:
        if tile <= self.overlap:
            raise UserError(f"tile {tile}: expected more than the overlap of {self.overlap} pixels; use a larger tile or a smaller overlap")
        if tile % self._multiple:
            above = self._rounded_up(tile)
            suitable = [str(size) for size in (above - self._multiple, above) if size > self.overlap]
            raise UserError(f"tile {tile}: expected a multiple of {self._multiple}, as the network requires; use {' or '.join(suitable)}")

    @property
    def padding(self) -> str:
        """The padding that is applied before the network."""
        return self.restorer.padding

    def __call__(self, lq: NDArray) -> NDArray:
        """Restore [h, w, C], uint8, uint16, or float32 in [0, 1], to [scale*h, scale*w, C], uint16 for uint16 input, otherwise uint8.

        Raises:
            NonFiniteOutputError: the network's output is not finite.
        """
        return self.restore(lq)[0]

    def restore(self, lq: NDArray) -> tuple[NDArray, int | None]:
        """Restore an image like a call, and also return the side of its tiles, or None if it was restored as a whole.

        Raises:
            NonFiniteOutputError: the network's output is not finite, or an activation is beyond the range of its precision.
            RuntimeError: the network fails; `is_out_of_memory` tells whether for lack of memory.
        """
        if self.tile != "auto":
            return self._restore(lq, self.tile)
        pixels = lq.shape[0] * lq.shape[1]
        tile = None if pixels < self._too_large else self._fitting
        while True:
            try:
                found = self._restore(lq, tile)
            except (RuntimeError, MemoryError) as error:
                tile = self._halved(tile or max(lq.shape[:2]))
                if tile is None or not is_out_of_memory(error):
                    raise
            else:
                if tile is not None:
                    self._too_large, self._fitting = min(self._too_large, pixels), tile
                return found
            # Out of the handler, so that the error no longer keeps the tensors of the failed attempt alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halved(self, side: int) -> int | None:
        """Return the next smaller tile; None if there is none."""
        side = self._rounded_up(side)
        half = max(self._rounded_up(side // 2), self._smallest)
        return half if half < side else None

    def _rounded_up(self, size: int) -> int:
        return size + -size % self._multiple

    def _restore(self, lq: NDArray, tile: int | None) -> tuple[NDArray, int | None]:
        if tile is None or tile >= max(lq.shape[:2]):
            return self.restorer(lq), None
        return self._in_tiles(lq, tile), tile

    def _in_tiles(self, lq: NDArray, tile: int) -> NDArray:
        height, width, _ = lq.shape
        padded = self._pad(lq)
        H, W = padded.shape[:2]
        scale = self._scale
        tile_height, tile_width = min(tile, H), min(tile, W)
        tops, lefts = tile_starts(H, tile_height, self.overlap), tile_starts(W, tile_width, self.overlap)
        row_counts, column_counts = _coverage(tops, tile_height, scale), _coverage(lefts, tile_width, scale)
        depth = np.uint16 if lq.dtype == np.uint16 else np.uint8
        out = np.empty((height * scale, width * scale, lq.shape[2]), depth)
        fault: NonFiniteOutputError | None = None  # of the first rows; its count is that of the whole image
        unfinished: Tensor | None = None  # sums of the rows that the previous tiles share with the next ones
        for top, below in zip(tops, [*tops[1:], H], strict=True):
            sums = self._sums(padded[top : top + tile_height], lefts, tile_width, unfinished)
            finished = (below - top) * scale
            counts = row_counts[top * scale : top * scale + finished, None] * column_counts
            means = sums[:, :, :finished] / counts.to(sums.device)
            rows = out[top * scale : top * scale + finished]  # fewer than `finished` where they are padding
            try:
                rows[:] = to_image(means[:, :, : len(rows), : width * scale], depth)
            except NonFiniteOutputError as error:
                place = f"in the rows from {top * scale} to {top * scale + len(rows)}, "
                fault = fault or NonFiniteOutputError(f"{place}{error}")
                fault.count += error.count
            unfinished = sums[:, :, finished:].clone()
        if fault is not None:
            raise fault
        return out

    def _sums(self, strip: NDArray, lefts: list[int], tile_width: int, unfinished: Tensor | None) -> Tensor:
        """Restore the tiles of one row, [tile, W, C], and add them to the unfinished rows: [1, C, scale*tile, scale*W]."""
        scale = self._scale
        sums: Tensor | None = None
        for left in lefts:
            x = to_tensor(strip[:, left : left + tile_width]).to(self.restorer.device)
            tile = self.restorer.apply(x).float()
            if sums is None:
                sums = tile.new_zeros(*tile.shape[:3], strip.shape[1] * scale)
                if unfinished is not None:
                    sums[:, :, : unfinished.shape[2]] = unfinished
            sums[..., left * scale : (left + tile_width) * scale] += tile
        assert sums is not None
        return sums

    def _pad(self, lq: NDArray) -> NDArray:
        """Pad [h, w, C] at the bottom and on the right as the restorer or the network pads the whole image."""
        height, width = lq.shape[:2]
        if self.padding == "flip_always":
            bottom, right = (self._multiple - size % self._multiple for size in (height, width))
            mode: Literal["symmetric", "reflect", "edge"] = "symmetric"
        else:
            bottom, right = (-size % self._multiple for size in (height, width))
            mode = "reflect" if bottom < height and right < width else "edge"
        return np.pad(lq, ((0, bottom), (0, right), (0, 0)), mode=mode)


def _coverage(starts: list[int], tile: int, scale: int) -> Tensor:
    """Return how many tiles cover each output pixel along an axis."""
    counts = torch.zeros((starts[-1] + tile) * scale)
    for start in starts:
        counts[start * scale : (start + tile) * scale] += 1
    return counts
