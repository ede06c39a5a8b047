"""Peak memory of restoring an image above that of the idle process, each network in a process of its own."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irformer.core.memory import peak_memory, restart_peak
from irformer.errors import UserError
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.floors import largest_layer
from irformer.speed.measure import Spread
from irformer.speed.peers import OFFICIAL, build, networks_to_compare, official_twin
from irformer.speed.restoring import Restoring
from irformer.speed.verdicts import Finding, find_target, verdicts

CASES = (Restoring("swinir_light", 2, 512),)
QUICK = (Restoring("swinir_light", 2, 128),)
MIB = 2**20


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of restoring an image.

    Args:
        work: the work in words.
        bytes: bytes above the idle process by network.
        floor: bytes that the input and the output of the largest layer need together.
        ratios: ratios to the official network.
        notes: what a reader must know.
    """

    work: str
    bytes: dict[str, int]
    floor: int
    ratios: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """Verdicts and notes."""
        return [*verdicts(self.ratios), *self.notes]


def compare_memory(case: Restoring, norms: Sequence[str], device: torch.device) -> PeakMemory:
    """Measure the peak memory of restoring an image.

    Args:
        case: the image and the model.
        norms: norms of irformer's networks.
        device: on a GPU, the memory of tensors on it is measured, otherwise that of the process.

    Raises:
        UserError: the model or a norm is unknown, or the memory of processes cannot be read here.
    """
    if device.type != "cuda" and not Path("/proc/self/clear_refs").exists():
        raise UserError("speed.py memory reads /proc, which only Linux provides; with --device cuda it measures a GPU")
    networks, note = networks_to_compare(case.model, case.scale, norms)
    names = sorted(networks, key=lambda name: name != OFFICIAL)
    found = {name: _in_a_process(case, name, device, torch.get_num_threads()) for name in names}
    work = f"memory {case.title.removeprefix('restore ')}"
    ratios = []
    for norm in norms if OFFICIAL in found else ():
        value, name = found[norm] / found[OFFICIAL], f"{norm} / {OFFICIAL}"
        ratios.append(Finding(name, work, Spread(value, value, value), find_target(work, name, device.type)))
    floor = 4 * largest_layer(networks[norms[0]], case.size, case.size)
    return PeakMemory(work, found, floor, tuple(ratios), (note,) if note else ())


def _in_a_process(case: Restoring, name: str, device: torch.device, threads: int) -> int:
    """Measure one network in a process of its own."""
    found: int = in_a_process(f"{case.title}, {name}", _measure, case, name, str(device), threads)
    return found


def in_a_process(title: str, measure: Callable[..., None], *arguments: object) -> Any:
    """Return what a function sends from a new process, whose memory no earlier work has touched.

    Args:
        title: what is measured, for messages.
        measure: called with a connection, to which it sends its result, and the arguments.
        arguments: other arguments.

    Raises:
        UserError: the process ends without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(sender, *arguments))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"{title}: the process ended with status {process.exitcode}; not enough memory?") from None
    process.join()
    return found


def _measure(sender: Connection, case: Restoring, name: str, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    network = build(case.model, "ln" if name == OFFICIAL else name, case.scale)
    if name == OFFICIAL:
        network = official_twin(network, case.model)
    sender.send(peak_bytes(network.to(device), torch.rand(1, 3, case.size, case.size).to(device)))


def peak_bytes(network: nn.Module, image: Tensor) -> int:
    """Return the bytes that restoring an image needs at its peak, above those that this process, or the GPU, holds before."""
    return restore_measured(network, image)[1]


@torch.inference_mode()
def restore_measured(network: nn.Module, image: Tensor) -> tuple[Tensor, int]:
    """Return a restored image and `peak_bytes`."""
    if image.device.type == "cuda":
        network(image[..., :64, :64])  # workspaces of libraries are not the network's
        torch.cuda.synchronize(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        before = torch.cuda.memory_allocated(image.device)
        restored = network(image)
        torch.cuda.synchronize(image.device)
        return restored, torch.cuda.max_memory_allocated(image.device) - before
    resident = restart_peak()
    assert resident is not None, "the caller checks that the system can restart the peak"
    restored = network(image)
    return restored, peak_memory() - resident


def memory_table(results: Sequence[PeakMemory]) -> ResultTable:
    """Return the table of several measurements."""
    rows: list[list[Cell]] = []
    for result in results:
        official = result.bytes.get(OFFICIAL)
        for name, found in result.bytes.items():
            over = None if official is None or name == OFFICIAL else Number(found / official, 2)
            rows.append([result.work, name, Number(found / MIB), over, Number(result.floor / MIB), Number(found / result.floor, 1)])
    header = ["work", "network", "MiB", "this / official", "floor, MiB", "times the floor"]
    notes = ["floor: the input and the output of the largest layer, which exist at the same time."]
    return ResultTable("Peak memory of restoring above the idle process", header, rows, notes)
