"""A network as a sequence of passes over the rows of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from irformer.banded.heap import Heap, return_freed_memory
from irformer.banded.live_bytes import LiveBytes
from irformer.banded.parked import Band, Ledger, Parked
from irformer.errors import UserError
from irformer.models.blocks import to_channels_first, to_channels_last
from irformer.norms import NormOutput
from irformer.norms.moments import Moments, merged

Norm = Callable[[Tensor], NormOutput]


class Target(Protocol):
    """What a pass writes."""

    def begin(self, measured: bool) -> None:
        """Start a pass."""

    def write(self, band: Band, values: Tensor, shift: int = 0, keep: int = 0) -> None:
        """Write the rows of a band."""


class Passes:
    """Runs the passes of a network, each in bands of its own height.

    Args:
        images: number of images B.
        units: height of the padded image in units.
        steps: height of the bands of each pass in units; None measures the passes in bands of one unit.
        store_on: device where features wait between the passes; None for temporary files.
        device: device of the computation.
        measured: compute the moments of all features, for norms with statistics of the whole image.
        heap: returns freed memory of the host between bands; None on a GPU and while passes are measured.
    """

    def __init__(
        self,
        images: int,
        units: int,
        steps: Sequence[int] | None,
        store_on: torch.device | None,
        device: torch.device,
        measured: bool,
        heap: Heap | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.peaks: list[int] = []
        self._images = images
        self._units = units
        self._steps = steps
        self._store_on = store_on
        self._device = device
        self._measured = measured
        self._heap = heap
        self._count = 0

    def park(self, unit: int, width: int) -> Parked:
        """Return features without content.

        Args:
            unit: number of rows in a unit at their resolution.
            width: number of columns.
        """
        return Parked(self._images, unit, self._units, width, self._store_on, self._device, self.ledger)

    def fill(self, target: Target, function: Callable[[Band], Tensor], shift: int = 0, keep: int = 0, measured: bool | None = None) -> None:
        """Write all bands of a target in one pass.

        Args:
            target: what is written.
            function: returns the rows of a band [B, rows, W, C].
            shift: as in `Parked.rows`, when writing.
            keep: number of rows above a band that the function reads from the target itself.
            measured: compute the moments of what is written; by default if the network's norms need any.
        """
        target.begin(self._measured if measured is None else measured)
        self.scan(lambda band: target.write(band, function(band), shift, keep))

    def scan(self, function: Callable[[Band], None]) -> None:
        """Call a function for each band in one pass."""
        rehearsing = self._steps is None
        step = 1 if self._steps is None else self._steps[self._count]
        self._count += 1
        meter = LiveBytes() if rehearsing else nullcontext()
        for start in range(0, self._units, step):
            with meter:
                function(Band(start, min(start + step, self._units), self._units))
            if self._heap is not None:
                self._heap.check()
        return_freed_memory()
        if isinstance(meter, LiveBytes):
            self.peaks.append(meter.peak)


def shares_statistics(norm: nn.Module) -> bool:
    """Return whether a norm takes statistics that tokens share, so that its result depends on the whole image.

    Raises:
        UserError: the norm does not say.
    """
    axes = getattr(norm, "shared_axes", None)
    if axes is None:
        raise UserError(
            f"{type(norm).__name__} has no method shared_axes, so it is unknown whether it can be computed in bands; "
            "define it as in irformer.norms.LayerNorm, or run the network without a memory bound"
        )
    return bool(axes(4))


def whole_image_norm(norm: nn.Module, parts: Sequence[Parked], channels_first: bool = False) -> Norm:
    """Return a norm as a function of some rows that uses the statistics of all rows.

    Args:
        norm: a norm.
        parts: the features, with the channels of several concatenated.
        channels_first: rows are [B, C, H, W] instead of [B, H, W, C].
    """
    if not shares_statistics(norm):
        return norm
    found = [part.moments() for part in parts]
    statistics = Moments(*(torch.cat(values, -1) for values in zip(*found, strict=True)))
    if channels_first:
        statistics = Moments(*(value.movedim(-1, 1) for value in statistics))
    for axis in norm.shared_axes(4):  # type: ignore[operator]
        statistics = merged(statistics, axis)

    def normalize(x: Tensor) -> NormOutput:
        wide = torch.promote_types(x.dtype, torch.float32)
        out: NormOutput = norm.forward_with(x, Moments(*(value.to(wide) for value in statistics)))  # type: ignore[operator]
        return out

    return normalize


def reach(*modules: nn.Module) -> int:
    """Return the number of rows above and below a row that a sequence of convolutions reads, at the lowest resolution in it."""
    convolutions = (layer for module in modules for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return sum(int(layer.kernel_size[0]) // 2 for layer in convolutions)


def in_channels_last(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a module that maps [B, C, H, W] as a function of [B, H, W, C]."""
    return lambda x: to_channels_last(module(to_channels_first(x)))
