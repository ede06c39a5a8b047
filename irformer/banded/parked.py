"""Features of a whole image that wait between two passes, in memory or in a temporary file, read and written in bands of rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import IO, NamedTuple

import torch
from torch import Tensor

from irformer.norms.moments import Moments, merged, moments


class Band(NamedTuple):
    """Consecutive rows of an image in units, which are as high as the windows.

    Args:
        start: first unit.
        end: unit after the last.
        units: number of units in the image.
    """

    start: int
    end: int
    units: int

    @property
    def at_bottom(self) -> bool:
        """Whether the band ends where the image ends."""
        return self.end == self.units


class Margins(NamedTuple):
    """The rows of a band together with rows around it, fewer at the top and the bottom of the image.

    Args:
        values: [B, above + height + below, W, C].
        above: number of rows above the band.
        below: number of rows below the band.
    """

    values: Tensor
    above: int
    below: int

    def cut(self, y: Tensor) -> Tensor:
        """Cut the margins off the result of a computation on `values`, whose number of rows may be a multiple or a fraction of theirs."""
        rows, of = y.shape[1], self.values.shape[1]
        return y[:, self.above * rows // of : rows - self.below * rows // of]

    def through(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the rows of the band after a function that reads no more rows around each row than the margins have."""
        return self.cut(function(self.values))


class Store:
    """Where the rows of features lie: a tensor, or a temporary file.

    Args:
        shape: [B, H, W, C].
        dtype: type of the features.
        device: device of the tensor; None creates a file.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device | None) -> None:
        self._shape = shape
        self._dtype = dtype
        self._tensor = None if device is None else torch.empty(shape, dtype=dtype, device=device)
        # Not a memory map: its pages count as memory of the process until the system reclaims them.
        self._file: IO[bytes] | None = tempfile.TemporaryFile(prefix="irformer-") if device is None else None  # noqa: SIM115

    @property
    def nbytes(self) -> int:
        """Size of the features."""
        return torch.Size(self._shape).numel() * self._dtype.itemsize

    def read(self, start: int, end: int) -> Tensor:
        """Return rows [B, end - start, W, C]: a view, or on the CPU, a copy of the file's."""
        if self._tensor is not None:
            return self._tensor[:, start:end]
        B, _, W, C = self._shape
        values = torch.empty(B, end - start, W, C, dtype=self._dtype)
        for image, part in enumerate(values):
            found = self._at(image, start).readinto(_raw(part))  # type: ignore[attr-defined]
            assert found == part.nbytes
        return values

    def write(self, start: int, values: Tensor) -> None:
        """Replace rows by [B, rows, W, C]."""
        if self._tensor is not None:
            self._tensor[:, start : start + values.shape[1]] = values
            return
        for image, part in enumerate(values.cpu()):
            self._at(image, start).write(_raw(part.contiguous()))

    def close(self) -> None:
        """Free the memory or the file."""
        self._tensor = None
        if self._file is not None:
            self._file.close()

    def _at(self, image: int, row: int) -> IO[bytes]:
        assert self._file is not None
        _, H, W, C = self._shape
        self._file.seek((image * H + row) * W * C * self._dtype.itemsize)
        return self._file


def _raw(values: Tensor) -> memoryview:
    """Return the bytes of contiguous features."""
    return values.flatten().view(torch.uint8).numpy().data


class Ledger:
    """Counts the bytes of features that wait at the same time."""

    def __init__(self) -> None:
        self._now = 0
        self.peak = 0

    def add(self, count: int) -> None:
        """Count bytes that are added, or removed if negative."""
        self._now += count
        self.peak = max(self.peak, self._now)


class Parked:
    """Features [B, H, W, C] of a whole image. The first band that is written determines C and the dtype.

    A pass may read and write the same features: within `keep` rows above a band, reading returns the rows as they were before the pass.

    Args:
        images: B.
        unit: rows in a unit.
        units: number of units.
        width: W.
        store_on: device where the features wait; None for a temporary file.
        device: device of the computation.
        ledger: counts the bytes.
    """

    def __init__(
        self, images: int, unit: int, units: int, width: int, store_on: torch.device | None, device: torch.device, ledger: Ledger
    ) -> None:
        self.images = images
        self.unit = unit
        self.units = units
        self.width = width
        self.dtype: torch.dtype | None = None
        self._store_on = store_on
        self.device = device
        self._ledger = ledger
        self._store: Store | None = None
        self._kept: tuple[int, Tensor] | None = None
        self._parts: list[tuple[int, Moments]] | None = None

    def __enter__(self) -> Parked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the features."""
        if self._store is not None:
            self._ledger.add(-self._store.nbytes)
            self._store.close()
            self._store = None

    def begin(self, measured: bool) -> None:
        """Start a pass that writes all rows.

        Args:
            measured: compute the moments of what is written.
        """
        self._kept = None
        self._parts = [] if measured else None

    def rows(self, band: Band, shift: int = 0) -> Tensor:
        """Return the rows of a band [B, rows, W, C], those of the image moved up by `shift` rows in a cycle."""
        start, end, height = band.start * self.unit + shift, band.end * self.unit + shift, self.units * self.unit
        if end <= height:
            return self._read(start, end)
        return torch.cat([self._read(start, height), self._read(0, end - height)], 1)

    def around(self, band: Band, margin: int) -> Margins:
        """Return the rows of a band and up to `margin` rows of the image above and below it."""
        start, end = band.start * self.unit, band.end * self.unit
        above, below = min(margin, start), min(margin, self.units * self.unit - end)
        return Margins(self._read(start - above, end + below), above, below)

    def write(self, band: Band, values: Tensor, shift: int = 0, keep: int = 0) -> None:
        """Replace the rows of a band.

        Args:
            band: the band.
            values: [B, rows, W, C].
            shift: as in `rows`.
            keep: number of former rows at the end of the band that are still read in this pass; at most a unit.
        """
        if self._store is None:
            self.dtype = values.dtype
            shape = (self.images, self.units * self.unit, self.width, values.shape[3])
            self._store = Store(shape, values.dtype, self._store_on)
            self._ledger.add(self._store.nbytes)
        self._kept = self._rows_kept(band, keep) if keep and not band.at_bottom else None
        if self._parts is not None:
            self._parts.append((values.shape[1], moments(values, [1, 2])))
        start, height = band.start * self.unit + shift, self.units * self.unit
        fitting = min(values.shape[1], height - start)
        self._store.write(start, values[:, :fitting])
        if fitting < values.shape[1]:
            self._store.write(0, values[:, fitting:])

    def _rows_kept(self, band: Band, keep: int) -> tuple[int, Tensor]:
        """Return the last `keep` rows of a band as they are before it is written, and the number of the first."""
        assert self._store is not None
        assert keep <= self.unit
        last = band.end * self.unit - keep
        return last, self._store.read(last, last + keep).clone()

    def moments(self) -> Moments:
        """Return the moments of each channel of each image, [B, 1, 1, C], float64. The last pass was measured."""
        assert self._parts
        counts, parts = zip(*self._parts, strict=True)
        means, variances = (torch.stack(values).double() for values in zip(*parts, strict=True))
        rows = torch.tensor(counts, dtype=torch.float64, device=means.device).view(-1, 1, 1, 1, 1)
        mean, variance = merged(Moments(means, variances), 0, rows)
        return Moments(mean[0], variance[0])

    def _read(self, start: int, end: int) -> Tensor:
        assert self._store is not None
        if self._kept is None or start >= self._kept[0] + self._kept[1].shape[1]:
            return self._store.read(start, end).to(self.device)
        first, kept = self._kept
        assert start >= first
        stored = self._store.read(first + kept.shape[1], end)
        return torch.cat([kept[:, start - first :], stored], 1).to(self.device)
