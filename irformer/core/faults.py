"""One-line messages for system errors (a full disk, a read-only folder, a file where a folder should be), with a remedy."""

import errno
import os
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT)


def machine_fault(error: OSError, where: Path | None = None) -> str | None:
    """Describe a system error and its remedy in one line; return None for any other error.

    Args:
        error: as raised by the operating system.
        where: the path to name if the error names no file.
    """
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else where
    subject = "" if path is None else f"{_shown(path)}: "
    if error.errno in DISK_FULL:
        return f"{subject}{error.strerror}; free some space"
    if error.errno in _NOT_WRITABLE:
        return f"{subject}{error.strerror}; grant yourself write permission, or choose another folder"
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and path is not None:
        for folder in (path, *path.parents):
            if folder.exists() and not folder.is_dir():
                return f"{_shown(folder)}: is a file, expected a folder; move it, or choose another folder"
    if error.errno == errno.EISDIR:
        return f"{subject}is a folder, expected a file; move it"
    if error.errno in _BROKEN:
        return f"{subject}{error.strerror}; check the disk or the network file system"
    return None


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_absolute() else str(path)
