"""Restoring an image within a memory bound against restoring it at once: difference, peak memory and time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn

from irformer.banded.bounded import BoundedNetwork
from irformer.errors import UserError
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.peak_memory import in_a_process, restore_measured
from irformer.speed.peers import build
from irformer.speed.restoring import Restoring

MODELS = (("swinir_tiny", 2), ("hat_tiny", 2), ("drct_tiny", 2), ("restormer_tiny", None))
CASES = tuple(Restoring(model, scale, size) for model, scale in MODELS for size in (512, 1024))
QUICK = tuple(Restoring(model, scale, 64) for model, scale in MODELS)
MB = 10**6
# Images on which libraries allocate their workspaces, and a bounded network measures its passes, before anything is measured.
_WARM_UP = 64


@dataclass(frozen=True)
class BoundedRun:
    """One image, restored at once and within a bound.

    Args:
        work: the work in words.
        norm: the norm.
        bound: the bound in bytes; None takes what is free.
        difference: the root mean square of the difference relative to that of the image.
        bytes: peak memory above the idle process, at once and within the bound.
        seconds: time, at once and within the bound.
    """

    work: str
    norm: str
    bound: int | None
    difference: float
    bytes: tuple[int, int]
    seconds: tuple[float, float]


def compare_bounded(case: Restoring, norm: str, memory: str, device: torch.device) -> BoundedRun:
    """Restore an image at once and within a bound, in a process of its own.

    Args:
        case: the image and the model.
        norm: the norm.
        memory: the bound, such as 500MB.
        device: on a GPU, the memory of tensors on it is measured, otherwise that of the process.

    Raises:
        UserError: the memory of processes cannot be read here, or the bound is too small.
    """
    if device.type != "cuda" and not Path("/proc/self/clear_refs").exists():
        raise UserError("speed.py bounded reads /proc, which only Linux provides; with --device cuda it measures a GPU")
    found = in_a_process(f"{case.title}, {norm}", _measure, case, norm, memory, str(device), torch.get_num_threads())
    if isinstance(found, UserError):
        raise found
    run: BoundedRun = found
    return run


def _measure(sender: Connection, case: Restoring, norm: str, memory: str, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    network = build(case.model, norm, case.scale).to(device)
    image = torch.rand(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)).to(device)
    within = BoundedNetwork(network, memory)
    try:
        with torch.inference_mode():
            for call in (network, within):
                call(image[..., :_WARM_UP, :_WARM_UP])
        found, within_bytes, within_seconds = _timed(within, image)
    except UserError as error:
        sender.send(error)
        return
    expected, bytes_at_once, seconds_at_once = _timed(network, image)
    difference = float((found - expected).double().norm() / expected.double().norm())
    sender.send(BoundedRun(case.title, norm, within.memory, difference, (bytes_at_once, within_bytes), (seconds_at_once, within_seconds)))


def _timed(network: nn.Module, image: Tensor) -> tuple[Tensor, int, float]:
    """Return the restored image, the peak of memory, and the time."""
    start = time.perf_counter()
    restored, peak = restore_measured(network, image)
    return restored, peak, time.perf_counter() - start


def bounded_table(runs: Sequence[BoundedRun]) -> ResultTable:
    """Return the table of several images."""
    rows: list[list[Cell]] = []
    for run in runs:
        at_once, within = run.bytes
        seconds, seconds_within = run.seconds
        rows.append(
            [
                run.work,
                run.norm,
                f"{run.difference:.0e}",
                Number(at_once / MB),
                "auto" if run.bound is None else Number(run.bound / MB),
                Number(within / MB),
                Number(seconds, 1),
                Number(seconds_within, 1),
                Number(seconds_within / seconds, 2),
            ]
        )
    header = ["work", "norm", "difference", "at once, MB", "bound, MB", "within, MB", "at once, s", "within, s", "ratio"]
    notes = [
        "difference: root mean square, relative to the image. MB: peak memory above the idle process, weights and input excluded.",
        "The first call of a bounded network measures its passes on small images, which is not counted here.",
    ]
    return ResultTable("Restoring within a memory bound", header, rows, notes)
