"""How high the bands of each pass may be: a rehearsal on small images measures what a pass needs."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from irformer.banded.budget import free_bytes, shown_bytes
from irformer.banded.passes import Passes
from irformer.errors import UserError

Restore = Callable[[Tensor, Passes], Tensor]

# Memory that the allocator of the system takes for the tensors of a band, relative to their size: it cannot use all gaps between them.
_SLACK = 2.0
# Workspaces of libraries, and freed memory between tensors.
_RESERVE = 64 * 10**6
# Larger bands than this need not be faster: their tensors do not fit into the caches of the processor.
_ENOUGH = 64 * 10**6
# Features wait in files only if memory leaves bands with less than this many times the smallest ones.
_COMFORT = 2
# Widths of the rehearsal's images in units. With a single window in a row, the memory would not be typical of a row.
_WIDTHS = (2, 4)
# Height of the rehearsal's images in units, so that a band has rows above and below it.
_HEIGHT = 3


@dataclass(frozen=True)
class Cost:
    """Bytes of a pass: constant + per_unit * columns * units of a band.

    Args:
        constant: bytes that do not depend on the size of the band.
        per_unit: bytes for each column of the image and unit of the band's height.
    """

    constant: float
    per_unit: float

    def of(self, width: int, units: int = 1) -> int:
        """Return the bytes for a band of some units in an image of a width."""
        return int(_SLACK * (self.constant + self.per_unit * width * units))

    def units(self, width: int, memory: float) -> int:
        """Return how many units fit into an amount of memory, at least 1."""
        return max(1, int((memory / _SLACK - self.constant) / (self.per_unit * width)))


@dataclass(frozen=True)
class Costs:
    """What a network needs.

    Args:
        passes: costs of each pass, for columns of the padded image.
        parked: bytes of all features that wait at the same time, for each pixel of the padded image.
        result: bytes of the restored image for each pixel of the image.
    """

    passes: tuple[Cost, ...]
    parked: float
    result: float


@dataclass(frozen=True)
class Plan:
    """How a network is applied to an image.

    Args:
        steps: height of the bands of each pass, in units.
        store_on: device where features wait; None for temporary files.
        room: bytes that may be allocated between two bands.
    """

    steps: tuple[int, ...]
    store_on: torch.device | None
    room: int


def rehearse(restore: Restore, like: Tensor, multiple: int, measured: bool) -> Costs:
    """Measure the passes of a network on two small images.

    Args:
        restore: the network.
        like: images [B, C, H, W] of the number, type and device that are to be restored.
        multiple: height of a unit.
        measured: as in `Passes`.
    """
    peaks, parked, result = [], 0.0, 0.0
    for units in _WIDTHS:
        shape = (*like.shape[:2], _HEIGHT * multiple, units * multiple)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like)
        passes = Passes(len(like), _HEIGHT, None, None, like.device, measured)
        restored = restore(image, passes)
        pixels = image[0, 0].numel()
        peaks.append(passes.peaks)
        parked, result = passes.ledger.peak / pixels, restored.nbytes / pixels
    narrow, wide = (units * multiple for units in _WIDTHS)
    costs = []
    for less, more in zip(*peaks, strict=True):
        slope = max((more - less) / (wide - narrow), 1.0)
        costs.append(Cost(max(0.0, more - slope * wide), slope))
    return Costs(tuple(costs), parked, result)


def plan(costs: Costs, like: Tensor, multiple: int, memory: int | None) -> Plan:
    """Choose the height of the bands and the place of the features.

    Args:
        costs: what the network needs.
        like: the images [B, C, H, W].
        multiple: height of a unit.
        memory: the bound in bytes; None takes what is free.

    Raises:
        UserError: the bound is too small, or the temporary folder.
    """
    height, width = like.shape[2:]
    units, columns = -(-height // multiple), -(-width // multiple) * multiple
    fixed = int(costs.result * height * width) + _RESERVE
    smallest = max(cost.of(columns) for cost in costs.passes)
    bound = free_bytes(like.device) if memory is None else memory
    if bound < fixed + smallest:
        raise UserError(
            f"memory={shown_bytes(bound)}: too little for {width}x{height} pixels, which need at least {shown_bytes(fixed + smallest)}: "
            f"{shown_bytes(fixed)} for the restored image and {shown_bytes(smallest)} for a band of {multiple} rows"
        )
    parked = int(costs.parked * units * multiple * columns)
    store_on = _place(parked, bound - fixed - _COMFORT * smallest, like.device)
    left = bound - fixed - (parked if store_on == like.device else 0)
    if like.device.type == "cpu":
        left = min(left, _ENOUGH)
    steps = tuple(_even(cost.units(columns, left), units) for cost in costs.passes)
    return Plan(steps, store_on, bound - max(cost.of(columns, step) for cost, step in zip(costs.passes, steps, strict=True)))


def _place(parked: int, room: int, device: torch.device) -> torch.device | None:
    """Return where features wait: on the device if it has room for them, otherwise in memory of the CPU, otherwise in files."""
    if parked <= room:
        return device
    if device.type != "cpu" and parked <= free_bytes(torch.device("cpu")):
        return torch.device("cpu")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if parked > free:
        raise UserError(
            f"{folder}: features beyond the memory bound need {shown_bytes(parked)} in temporary files, but {shown_bytes(free)} are free; "
            "free some space, set TMPDIR to another folder, or raise the bound"
        )
    return None


def _even(step: int, units: int) -> int:
    """Return the height of bands that are about equally high, and not higher than `step`."""
    bands = -(-units // step)
    return -(-units // bands)
