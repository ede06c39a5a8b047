"""Restore images and folders of images: python scripts/restore.py INPUT... OUTPUT --checkpoint PATH."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from irformer.commands import command_line
from irformer.commands.common import device, reporting_user_errors
from irformer.commands.restore_jobs import Job, named, plan
from irformer.core.trust import Trust
from irformer.errors import UserError
from irformer.evaluation.restorers import NetworkRestorer
from irformer.imaging.images import decode_image, printable, write_image
from irformer.weights.checkpoints import load_checkpoint

SOME_FAILED = 3
INTERRUPTED = 130


def restore() -> None:
    """Restore images and folders of images: python scripts/restore.py INPUT... OUTPUT --checkpoint PATH."""
    arguments = command_line.restore().parse_args()
    with reporting_user_errors():
        try:
            sys.exit(_restore(arguments))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


def _restore(arguments: argparse.Namespace) -> int:
    found = plan(arguments.inputs, arguments.output)
    jobs = [job for job in found.jobs if arguments.overwrite or not job.target.exists()]
    loaded = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
    network: Any = loaded.network
    if network.in_channels not in (1, 3):
        raise UserError(f"{arguments.checkpoint}: its network takes {network.in_channels} channels, expected 1 (gray) or 3 (RGB)")
    where = device(arguments.device)
    images = _ImageRestorer(NetworkRestorer(network.to(where), "reflect_min", where), network.in_channels)
    if jobs:
        _require_writable(jobs[0].target.parent if len(found.jobs) == 1 else arguments.output)
    done = failed = 0
    with _Interrupt() as interrupt, tqdm(total=len(jobs), unit="image", disable=None) as bar:
        for job in jobs:
            if interrupt.received:
                break
            try:
                images.restore(job)
                done += 1
            except _DiskError as error:
                failed += 1
                bar.write(f"failed: {named(error, job.target)}; stopped", file=sys.stderr)
                break
            except UserError as error:
                failed += 1
                bar.write(f"failed: {named(error, job.source)}", file=sys.stderr)
            bar.update()
    rest = {
        "already present, --overwrite replaces them": len(found.jobs) - len(jobs),
        "failed": failed,
        "left": len(jobs) - done - failed,
        "files that are not images": found.ignored,
    }
    details = "".join(f"; {count} {what}" for what, count in rest.items() if count)
    stopped = interrupt.received and done + failed < len(jobs)
    line = f"{done} images restored x{network.scale}: {printable(str(arguments.output))}{details}{images.remark}"
    print(f"interrupted: {line}; rerun the command to restore the rest" if stopped else line)
    if stopped:
        return INTERRUPTED
    return SOME_FAILED if failed else 0


class _DiskError(UserError):
    """The output cannot be written, and neither could the next one."""


class _ImageRestorer:
    """Restores image files of any bit depth and kind with a network for gray or RGB images.

    Args:
        restorer: the network.
        channels: its number of input channels, 1 or 3.
    """

    def __init__(self, restorer: NetworkRestorer, channels: int) -> None:
        self.restorer = restorer
        self.channels = channels
        self.turned_gray = 0

    @property
    def remark(self) -> str:
        """A remark for the final message."""
        return f"; {self.turned_gray} color images became gray, because the network is for gray images" if self.turned_gray else ""

    def restore(self, job: Job) -> None:
        """Restore one file; the output appears complete or not at all.

        Raises:
            UserError: the image cannot be decoded, restored, or written in the output format.
            _DiskError: the output folder cannot be written to.
        """
        image = decode_image(job.source)
        pixels: NDArray = image.pixels
        alpha: NDArray | None = image.alpha
        try:
            if self.channels == 1 and pixels.shape[2] == 3:
                pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[..., None]
                self.turned_gray += 1
            restored = self._apply(pixels)
            if alpha is not None:
                alpha = self._alpha(alpha, restored.shape[:2])
        except (RuntimeError, MemoryError) as error:
            size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{job.source}: the network fails on {size} ({reason}): too small for it, or too large for memory") from None
        self._write(job.target, restored, alpha)

    def _apply(self, pixels: NDArray) -> NDArray:
        """Restore [h, w, 1 or 3]; an RGB network receives gray as three equal channels, and its output channels are averaged."""
        if pixels.shape[2] == self.channels:
            return self.restorer(pixels)
        restored = self.restorer(np.repeat(pixels, 3, axis=2))
        return restored.astype(np.float64).mean(2, keepdims=True).round().astype(restored.dtype)

    def _alpha(self, alpha: NDArray, size: tuple[int, ...]) -> NDArray:
        """Restore alpha, [h, w] to [H, W]; a constant value, such as fully opaque, is preserved exactly."""
        return np.full(size, alpha[0, 0]) if (alpha == alpha[0, 0]).all() else self._apply(alpha[..., None])[..., 0]

    @staticmethod
    def _write(target: Path, image: NDArray, alpha: NDArray | None) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # The suffix determines the format, so the temporary file keeps its name, in a hidden folder next to the target.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".restore-") as folder:
                temporary = Path(folder) / target.name
                try:
                    write_image(temporary, image, alpha)
                except UserError as error:
                    if isinstance(error.__context__, OSError):
                        raise error.__context__ from None
                    raise UserError(str(error).replace(str(temporary), str(target))) from None
                temporary.replace(target)
        except OSError as error:
            raise _DiskError(f"{target}: cannot be written ({error.strerror}): free some space or choose another OUTPUT") from None


def _require_writable(folder: Path) -> None:
    """Create a folder and check that it can be written to, before the work starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".restore-"):
            pass
    except OSError as error:
        raise UserError(f"{printable(str(folder))}: cannot be written to ({error.strerror}); choose another OUTPUT") from None


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
