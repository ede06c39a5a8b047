"""Files that survive an interruption: renamed when they are whole, or cut back to their size at the time of the checkpoint."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from irformer.errors import UserError

_log = logging.getLogger(__name__)


def write_atomically(path: Path, write: Callable[[Path], object], keep: Path | None = None) -> None:
    """Let `write` fill a temporary file, then rename it to path: a reader finds the old file or the new one, never a part.

    The file is on the disk before it is renamed, so that this holds for a power cut too. It gets the mode that the umask gives to new
    files, whatever library writes it.

    Args:
        path: of the file.
        write: fills the file that it is given.
        keep: a name under which the former file at path is kept.

    Raises:
        OSError: the file cannot be written; the error names path, and path still holds what it held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        write(temporary)
        temporary.chmod(mode)
        _to_disk(temporary)
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number is None or getattr(error, "filename", None) not in (None, str(temporary)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _error_number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)|code: (\d+)", str(error))  # as Rust prints it
    return int(number[1] or number[2]) if number else None


def require_writable(folder: Path) -> None:
    """Create a folder if it is missing, and try to write a file in it.

    Raises:
        OSError: it cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    probe.write_bytes(b"0")
    probe.unlink()


def _to_disk(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk; Windows cannot open folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of processes that were killed in the middle of `write_atomically`."""
    for file in folder.glob(".*.*"):
        if file.suffix[1:].isdigit():
            file.unlink(missing_ok=True)


def lock_of(file: Path) -> FileLock:
    """A lock that ends with the process that holds it, however that ends; `file` stays behind and means nothing by itself."""
    return FileLock(file, fallback_to_soft=False)  # a soft lock would outlive a killed process


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder.

    Raises:
        UserError: another process is training in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: another process is training in this folder; wait for it or end it, or take another name=NAME") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        _log.warning("%s: this file system has no locks (%s): do not train twice in this folder", folder, error.strerror)
    try:
        yield
    finally:
        lock.release()


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
