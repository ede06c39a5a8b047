"""Files that survive an interruption: renamed once complete, or truncated to their size at the last checkpoint."""

import errno
import hashlib
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
    """Write a temporary file, then rename it to `path`: readers find the old file or the new one, never a partial one.

    The file is flushed to disk before it is renamed, so this also holds after a power failure. Its mode follows the umask, regardless of
    the library that writes it.

    Args:
        path: path of the file.
        write: writes to the path that it receives.
        keep: path to which an existing file at `path` is renamed.

    Raises:
        OSError: the file cannot be written. The error names `path`, whose content is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        write(temporary)
        temporary.chmod(mode)
        _flush(temporary)
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _flush(path.parent)
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
    """Create a folder if it is missing, and check that a file can be written in it.

    Raises:
        OSError: the folder cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    probe.write_bytes(b"0")
    probe.unlink()


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk; Windows cannot open folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(file: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files left by processes that were killed during `write_atomically`."""
    for file in folder.glob(".*.*"):
        if file.suffix[1:].isdigit():
            file.unlink(missing_ok=True)


def file_lock(file: Path) -> FileLock:
    """Return a lock that is released when its process ends, even if killed; `file` remains and has no meaning by itself."""
    return FileLock(file, fallback_to_soft=False)  # a soft lock would outlive a killed process


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Prevent other processes from training in a folder.

    Raises:
        UserError: another process is training in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder}: another process is training in this folder; wait for it, stop it, or choose another name=NAME"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        _log.warning("%s: this file system does not support locks (%s): do not start two runs in this folder", folder, error.strerror)
    try:
        yield
    finally:
        lock.release()


def file_sizes(folder: Path, patterns: Sequence[str]) -> dict[str, int]:
    """Return the size in bytes of each file that matches one of the patterns, by its path relative to the folder."""
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def truncate_files(folder: Path, patterns: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Restore append-only files to the state recorded in `sizes`: truncate them, and remove those that are newer."""
    for name, size in file_sizes(folder, patterns).items():
        if name not in sizes:
            (folder / name).unlink()
        elif size > sizes[name]:
            os.truncate(folder / name, sizes[name])
