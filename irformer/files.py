"""Files of a run that survive an interruption: written aside and renamed, or cut back to what they held when the checkpoint was written."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from irformer.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object], keep: Path | None = None) -> None:
    """Let `write` fill a file beside path, then put it in path's place: a reader finds the old file or the new one, never a part.

    The file is on the disk before it is renamed, so that this holds for a power cut too.

    Args:
        path: of the file.
        write: fills the file that it is given.
        keep: what path held so far goes on under this name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        _to_disk(aside)
        if keep is not None and path.exists():
            path.replace(keep)
        aside.replace(path)
        _to_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_asides(folder: Path) -> None:
    """Remove what processes that were killed in the middle of `write_atomically` have left in a folder."""
    for aside in folder.glob(".*.*"):
        if aside.suffix[1:].isdigit():
            aside.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder to this process for a while; a process that is killed lets it go.

    Raises:
        UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not shared with forked workers, which may outlive us
        except OSError:
            raise UserError(
                f"{folder}: another process is training in this folder; wait for it or end it, or take another name=NAME"
            ) from None
        yield


def file_sizes(folder: Path, patterns: Sequence[str]) -> dict[str, int]:
    """Bytes in each of the files of a folder that match one of the patterns, by their path within it."""
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def cut_back(folder: Path, patterns: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Make files that only grow what they were when `sizes` was taken: cut to their size of then, or removed where they are newer."""
    for name, size in file_sizes(folder, patterns).items():
        if name not in sizes:
            (folder / name).unlink()
        elif size > sizes[name]:
            os.truncate(folder / name, sizes[name])
