"""Faults of the machine (a full disk, a read-only folder, a file where a folder should be), each in one line with what to do."""

import errno
import os
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT)


def machine_fault(error: OSError, where: Path | None = None) -> str | None:
    """What is wrong with the machine, and what to do about it, in one line; None for errors of any other kind.

    Args:
        error: as raised by the operating system.
        where: named where the error names no file.
    """
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else where
    subject = "" if path is None else f"{_shown(path)}: "
    if error.errno in NO_ROOM:
        return f"{subject}{error.strerror}; make room"
    if error.errno in _NOT_WRITABLE:
        return f"{subject}{error.strerror}; give yourself permission to write there, or name another folder"
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and path is not None:
        for folder in (path, *path.parents):
            if folder.exists() and not folder.is_dir():
                return f"{_shown(folder)}: a file is where a folder is expected; move it, or name another folder"
    if error.errno == errno.EISDIR:
        return f"{subject}a folder is where a file is expected; move it"
    if error.errno in _BROKEN:
        return f"{subject}{error.strerror}; check the disk or the network file system"
    return None


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_absolute() else str(path)
