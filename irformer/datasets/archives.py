"""Extracting images from zip and tar archives: checked before anything is written, extracted to a temporary folder, then renamed."""

import fnmatch
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

from rich.filesize import decimal
from tqdm import tqdm

from irformer.datasets.origins import Part
from irformer.errors import UserError
from irformer.imaging.images import SUFFIXES

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    link: bool
    open: Callable[[], IO[bytes] | None]


def unpack(file: Path, parts: Sequence[Part], root: Path) -> list[Path]:
    """Unpack images from an archive into folders; each set appears complete or not at all.

    Args:
        file: zip, tar, tar.gz, ...
        parts: the images to unpack, and their folders.
        root: the data folder.

    Returns:
        The folders that were written.

    Raises:
        UserError: the archive is damaged, unsafe (an absolute path, a path that leads outside, a link instead of an image) or not the
            expected one; the disk is too small; or a target folder exists.
    """
    try:
        with _opened(file) as members:
            chosen = _choose(file, members, parts)
            return _write(file, chosen, root)
    except _DAMAGED as error:
        raise UserError(f"{file}: the archive is damaged ({error}): remove it and download it again") from None
    except OSError as error:
        raise UserError(f"{file} cannot be unpacked below {root}: {error}") from None


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: a folder on the disk; it need not exist.
        needed: required space in bytes.
        what: what the space is needed for, for the message.

    Raises:
        UserError: there is too little; the message gives the required and the available space.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {decimal(needed)}, and the disk of {folder.absolute()} has {decimal(free)} free: "
            "free some space, or choose a folder on another disk with --data FOLDER"
        )


@contextmanager
def _opened(file: Path) -> Iterator[list[_Member]]:
    if tarfile.is_tarfile(file):
        with tarfile.open(file) as tar:
            yield [_tar_member(tar, info) for info in tar if not info.isdir()]
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as pack:
            yield [_zip_member(pack, info) for info in pack.infolist() if not info.is_dir()]
    else:
        raise UserError(f"{file}: neither a zip nor a tar archive: remove it and download it again")


def _zip_member(pack: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    return _Member(info.filename, info.file_size, stat.S_ISLNK(info.external_attr >> 16), lambda: pack.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.size, not info.isreg(), lambda: tar.extractfile(info))


def _choose(file: Path, members: Sequence[_Member], parts: Sequence[Part]) -> dict[Part, dict[str, _Member]]:
    """Select the members of each part, by the names of the files to write."""
    chosen: dict[Part, dict[str, _Member]] = {part: {} for part in parts}
    for member in members:
        path = PureWindowsPath(member.name)  # recognizes both slashes and drive letters
        if path.anchor or ".." in path.parts:
            raise UserError(f"{file}: contains the path {member.name}, which leads outside: nothing was unpacked, do not trust this file")
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        for part in parts:
            if not any(fnmatch.fnmatchcase(path.as_posix(), pattern) for pattern in part.members):
                continue
            if member.link:
                raise UserError(f"{file}: {member.name} is a link, expected an image: nothing was unpacked, do not trust this file")
            if path.name in chosen[part]:
                raise UserError(f"{file}: contains two images {path.name} for {part.folder}: it is not the expected archive")
            chosen[part][path.name] = member
    for part in parts:
        found = len(chosen[part])
        if found != part.images and (found or part.required):
            raise UserError(f"{file}: contains {found} images for {part.folder}, expected {part.images}: it is not the expected archive")
    return {part: images for part, images in chosen.items() if images}


def _write(file: Path, chosen: dict[Part, dict[str, _Member]], root: Path) -> list[Path]:
    """Write into folders that end in .part, and rename them at the end."""
    tops = {part: _first_missing(root, part.folder) for part in chosen}
    for top in tops.values():
        needed = sum(member.size for part, images in chosen.items() if tops[part] == top for member in images.values())
        require_space(top.parent, needed, f"unpacking {file.name}")
    temporary = {top: top.with_name(f"{top.name}.part") for top in tops.values()}
    total = sum(member.size for images in chosen.values() for member in images.values())
    try:
        for unfinished in temporary.values():
            shutil.rmtree(unfinished, ignore_errors=True)
        with tqdm(desc=f"unpacking {file.name}", total=total, unit="B", unit_scale=True, disable=None) as bar:
            for part, images in chosen.items():
                folder = temporary[tops[part]] / (root / part.folder).relative_to(tops[part])
                folder.mkdir(parents=True)
                for name, member in images.items():
                    source = member.open()
                    assert source is not None  # links were refused
                    with source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    bar.update(member.size)
        for top, finished in temporary.items():
            if top.exists():
                top.rmdir()  # an empty folder: see _first_missing
            finished.rename(top)
    finally:
        for unfinished in temporary.values():
            shutil.rmtree(unfinished, ignore_errors=True)
    return [root / part.folder for part in chosen]


def _first_missing(root: Path, folder: str) -> Path:
    """Return the topmost missing folder on the path to root/folder; renaming it into place makes a set appear at once.

    Raises:
        UserError: root/folder exists and is not empty.
    """
    path = root
    path.mkdir(parents=True, exist_ok=True)
    for name in Path(folder).parts:
        path = path / name
        if not path.exists():
            return path
    if path.is_symlink() or not path.is_dir() or any(path.iterdir()):
        raise UserError(f"{path} already exists and is not overwritten: move it elsewhere, then run the same command again")
    return path
