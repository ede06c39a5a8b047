"""Images out of zip and tar archives: checked before anything is written, unpacked aside, put in place by a rename."""

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
    """Unpack the images of some folders; each set appears whole or not at all.

    Args:
        file: zip, tar, tar.gz, ...
        parts: which images go where.
        root: the data folder.

    Returns:
        the folders that now stand below root.

    Raises:
        UserError: the archive is damaged, dangerous (a path that leaves it, an absolute path, a link in the place of an image), or does not
            hold what is expected; the disk is too small; a folder is in the way.
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
    """See that a disk holds what is to come.

    Args:
        folder: on the disk; need not exist yet.
        needed: bytes.
        what: needs them, for the message.

    Raises:
        UserError: there is less; says how much is needed and how much there is.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {size_text(needed)}, and the disk of {folder.absolute()} has {size_text(free)} left: "
            "free some space, or name a folder on another disk by --data FOLDER"
        )


def size_text(size: int) -> str:
    """A number of bytes for people, in powers of 1000."""
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"


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
    """The members of each part by the name that their file will have."""
    chosen: dict[Part, dict[str, _Member]] = {part: {} for part in parts}
    for member in members:
        path = PureWindowsPath(member.name)  # knows both slashes and drives
        if path.anchor or ".." in path.parts:
            raise UserError(f"{file}: holds the path {member.name}, which leads out of it: nothing was unpacked, do not trust this file")
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        for part in parts:
            if not any(fnmatch.fnmatchcase(path.as_posix(), pattern) for pattern in part.members):
                continue
            if member.link:
                raise UserError(f"{file}: {member.name} is a link, expected an image: nothing was unpacked, do not trust this file")
            if path.name in chosen[part]:
                raise UserError(f"{file}: holds two images {path.name} for {part.folder}: it is not the archive that was expected")
            chosen[part][path.name] = member
    for part in parts:
        found = len(chosen[part])
        if found != part.images and (found or part.required):
            raise UserError(
                f"{file}: holds {found} images for {part.folder}, expected {part.images}: it is not the archive that was expected"
            )
    return {part: images for part, images in chosen.items() if images}


def _write(file: Path, chosen: dict[Part, dict[str, _Member]], root: Path) -> list[Path]:
    """Write below folders that end in .part, and rename them all at the end."""
    tops = {part: _first_missing(root, part.folder) for part in chosen}
    for top in tops.values():
        needed = sum(member.size for part, images in chosen.items() if tops[part] == top for member in images.values())
        require_space(top.parent, needed, f"unpacking {file.name}")
    asides = {top: top.with_name(f"{top.name}.part") for top in tops.values()}
    total = sum(member.size for images in chosen.values() for member in images.values())
    try:
        for aside in asides.values():
            shutil.rmtree(aside, ignore_errors=True)
        with tqdm(desc=f"unpacking {file.name}", total=total, unit="B", unit_scale=True, disable=None) as bar:
            for part, images in chosen.items():
                folder = asides[tops[part]] / (root / part.folder).relative_to(tops[part])
                folder.mkdir(parents=True)
                for name, member in images.items():
                    source = member.open()
                    assert source is not None  # links were refused
                    with source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    bar.update(member.size)
        for top, aside in asides.items():
            if top.exists():
                top.rmdir()  # an empty folder: see _first_missing
            aside.rename(top)
    finally:
        for aside in asides.values():
            shutil.rmtree(aside, ignore_errors=True)
    return [root / part.folder for part in chosen]


def _first_missing(root: Path, folder: str) -> Path:
    """The topmost folder on the way to root/folder that does not exist: putting it in place by one rename shows a set at once.

    Raises:
        UserError: the folder is there already, and not empty.
    """
    way = root
    way.mkdir(parents=True, exist_ok=True)
    for name in Path(folder).parts:
        way = way / name
        if not way.exists():
            return way
    if way.is_symlink() or not way.is_dir() or any(way.iterdir()):
        raise UserError(f"{way} is in the way and is not touched: move it elsewhere, then run the same command again")
    return way
