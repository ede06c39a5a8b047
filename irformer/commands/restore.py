"""Restore images and folders of images: python scripts/restore.py INPUT... OUTPUT --checkpoint PATH."""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from irformer.banded.bounded import BoundedNetwork
from irformer.commands import command_line
from irformer.commands.common import device, reporting_user_errors
from irformer.commands.restore_images import Encoded, ImageRestorer
from irformer.commands.restore_jobs import Job, Naming, named, plan
from irformer.commands.restore_pipeline import DiskError, Pipeline
from irformer.core.memory import memory_limit
from irformer.core.trust import Trust
from irformer.errors import UserError, naming
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer, PrecisionOverflowError
from irformer.evaluation.tiling import TiledRestorer
from irformer.graphs.checkpoint_graphs import graph_beside
from irformer.graphs.runtimes import GraphNetwork
from irformer.imaging.decoding import STDERR_LOCK
from irformer.imaging.images import printable
from irformer.weights.checkpoints import Checkpoint, load_checkpoint

SOME_FAILED = 3
INTERRUPTED = 130

_LOG_INTERVAL = 30.0  # seconds between lines of progress where there is no terminal


def restore() -> None:
    """Restore images and folders of images: python scripts/restore.py INPUT... OUTPUT --checkpoint PATH."""
    arguments = command_line.restore().parse_args()
    with reporting_user_errors():
        try:
            sys.exit(_restore(arguments))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def _restore(arguments: argparse.Namespace) -> int:
    # Damage that matters is reported as an error. Set here once: changing it while threads decode images is not safe.
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    found = plan(arguments.inputs, arguments.output, Naming(arguments.format, arguments.suffix))
    jobs = [job for job in found.jobs if arguments.overwrite or not job.target.exists()]
    _require_quality_applies(arguments.quality, found.jobs)
    where = device("cpu" if arguments.backend != "torch" and arguments.device == "auto" else arguments.device)
    images, scale = _image_restorer(arguments, where)
    if jobs:
        _require_writable(jobs[0].target.parent if len(found.jobs) == 1 else arguments.output)
    limit = memory_limit() if where.type == "cpu" else contextlib.nullcontext()
    with limit:
        restored, failed, interrupted = _restore_all(images, jobs, arguments.workers)
    left = len(jobs) - len(restored) - failed
    rest = {
        "already present, --overwrite replaces them": len(found.jobs) - len(jobs),
        "failed": failed,
        "left": left,
        "file that is not an image" if found.ignored == 1 else "files that are not images": found.ignored,
    }
    details = "".join(f"; {count} {what}" for what, count in rest.items() if count)
    done = f"{_images(len(restored))} restored x{scale}: {printable(str(arguments.output))}"
    line = f"{done}{details}{_remarks(restored, arguments.tile)}"
    if interrupted and left:
        print(f"interrupted: {line}; rerun the command to restore the rest")
        return INTERRUPTED
    print(line)
    return SOME_FAILED if failed else 0


def _restore_all(images: ImageRestorer, jobs: Sequence[Job], workers: int) -> tuple[list[Encoded], int, bool]:
    """Restore images until all are done, the disk fails, or the user interrupts.

    Returns:
        The restored images without their data, the number of those that failed, and whether the user interrupted.

    Raises:
        UserError: activations overflow in the network's precision before any image is restored.
    """
    pipeline = Pipeline(images.read, images.restore, images.encode, images.write, workers)
    restored: list[Encoded] = []
    failed = 0
    with _Interrupt() as interrupt, _Progress(len(jobs)) as progress:
        for job, outcome in pipeline.run(jobs, lambda: interrupt.received):
            if isinstance(outcome, Encoded):
                restored.append(replace(outcome, data=b""))
            elif isinstance(outcome, PrecisionOverflowError) and not restored:
                raise UserError(_failure(job, outcome))  # the other images would most likely fail as well
            else:
                failed += 1
                progress.write(f"failed: {_failure(job, outcome)}")
            progress.update()
    return restored, failed, interrupt.received


def _failure(job: Job, error: UserError) -> str:
    if isinstance(error, DiskError):
        return printable(f"{job.target}: cannot be written ({error}): free some space or choose another OUTPUT; stopped")
    return named(error, job.source)


def _image_restorer(arguments: argparse.Namespace, where: torch.device) -> tuple[ImageRestorer, int]:
    """Load the network, and return what restores image files with it, and its scale."""
    checkpoint = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
    network: Any = checkpoint.network
    if network.in_channels not in (1, 3):
        raise UserError(f"{arguments.checkpoint}: its network takes {network.in_channels} channels, expected 1 (gray) or 3 (RGB)")
    if arguments.backend != "torch":
        network = _in_runtime(checkpoint, arguments, where)
    network = network.to(where)
    if arguments.memory is not None:
        network = _bounded(network, arguments)
    if arguments.ensemble:
        network = SelfEnsemble(network)
    whole = NetworkRestorer(network, "reflect_min", where, arguments.precision)
    if arguments.tile == "off" or arguments.memory is not None:
        return ImageRestorer(whole, network.in_channels, arguments.quality), network.scale
    with naming("--"):
        tiled = TiledRestorer(whole, arguments.tile, arguments.overlap)
    return ImageRestorer(tiled, network.in_channels, arguments.quality), network.scale


def _in_runtime(checkpoint: Checkpoint, arguments: argparse.Namespace, where: torch.device) -> GraphNetwork:
    """Return the network of a checkpoint in a runtime, from the ONNX file beside the checkpoint."""
    for option, value, expected in (
        ("device", where.type, "cpu"),
        ("precision", arguments.precision, "fp32"),
        ("memory", arguments.memory, None),
    ):
        if value != expected:
            raise UserError(
                f"--{option} {value}: --backend {arguments.backend} restores whole images or tiles on the CPU in fp32; omit one"
            )
    return GraphNetwork(graph_beside(checkpoint), arguments.backend)


def _bounded(network: Any, arguments: argparse.Namespace) -> BoundedNetwork:
    """Return the network in bands that need no more memory than the user allows."""
    if arguments.tile not in ("auto", "off"):
        raise UserError(f"--tile {arguments.tile}: --memory restores whole images in bands, without tiles; give only one of the two")
    if arguments.precision == "fp16_safe":
        raise UserError("--precision fp16_safe: --memory computes in one precision only, expected fp32, bf16 or fp16; use bf16")
    with naming("--memory: "):
        return BoundedNetwork(network, arguments.memory)


def _remarks(restored: list[Encoded], tile: int | str) -> str:
    """Return what the final message says beyond the counts."""
    remarks = []
    turned_gray = sum(image.turned_gray for image in restored)
    if turned_gray:
        remarks.append(f"{_images(turned_gray, 'color image')} became gray, because the network is for gray images")
    tiles = [image.tile for image in restored if image.tile is not None]
    if tiles and tile == "auto":
        sizes = f"{min(tiles)} pixels" if min(tiles) == max(tiles) else f"{min(tiles)} to {max(tiles)} pixels"
        remarks.append(f"{_images(len(tiles))} restored in tiles of {sizes}, because memory did not suffice for the whole image")
    for what, count in sorted(Counter(what for image in restored for what in image.dropped).items()):
        remarks.append(f"{what} dropped from {_images(count)}")
    return "".join(f"; {remark}" for remark in remarks)


def _images(count: int, what: str = "image") -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _require_quality_applies(quality: int | None, jobs: Sequence[Job]) -> None:
    """Check that a quality, if given, applies to an output."""
    if quality is not None and not any(job.target.suffix.lower() in (".jpg", ".jpeg", ".webp") for job in jobs):
        kind = jobs[0].target.suffix
        raise UserError(f"--quality {quality}: {kind} files are lossless; write jpg or webp files, or omit --quality")


def _require_writable(folder: Path) -> None:
    """Create a folder and check that it can be written to, before the work starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".restore-"):
            pass
    except OSError as error:
        raise UserError(f"{printable(str(folder))}: cannot be written to ({error.strerror}); choose another OUTPUT") from None


class _Progress:
    """Shows a progress bar with the rate and the time left on a terminal, and a line every 30 seconds in a log.

    Args:
        total: number of images.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="image", disable=None)
        self._total = total
        self._done = 0
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def write(self, line: str) -> None:
        """Print a line to standard error, which a decoder in another thread may have redirected."""
        with STDERR_LOCK:
            self._bar.write(line, file=sys.stderr)
            sys.stderr.flush()

    def update(self) -> None:
        """Count an image that was restored or failed."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and self._done < self._total and now - self._said >= _LOG_INTERVAL:
            self._said = now
            rate = self._done / (now - self._started)
            left = tqdm.format_interval((self._total - self._done) / rate)
            self.write(f"{self._done} of {self._total} images, {rate:.3g} images/s, {left} left")


class _Interrupt:
    """Records the first Ctrl-C, so that the current image is finished; the second one interrupts at once."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "_Interrupt":
        self._before = signal.signal(signal.SIGINT, self._mark)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _mark(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
