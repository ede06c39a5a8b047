"""The packed store of a training set: every image decoded once, so that a patch costs the reading of its rows and nothing else.

A store is a folder with one file for the clean images (hq.bin) and one for the degraded images of each scale that has files (lq_x2.bin),
the uint8 RGB rows of all images one after the other, and index.json, which says where each image lies and what its source file was. It is
written beside its place and renamed, so that what is found there is whole.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from irformer.core.files import file_lock
from irformer.data.sources import check_pairs, crop_to_multiples
from irformer.errors import UserError
from irformer.imaging.images import ImageHeader, fingerprint, read_header, read_intact_image

FORMAT = 2
_READ = (1, FORMAT)  # stores of format 1 have no checksums of pixels
INDEX = "index.json"
HQ = "hq"
ELSEWHERE = "name another place by paths.packed=FOLDER (train.py) and --packed FOLDER (prepare_data.py)"


def lq_role(scale: int) -> str:
    """What a store calls the degraded images whose clean ones are `scale` times larger."""
    return f"lq_x{scale}"


@dataclass(frozen=True)
class StoredImage:
    """One image of a store.

    Args:
        file: name of its source file.
        bytes: size of the source file.
        mtime_ns: when the source file was changed last.
        checksum: BLAKE2b of the source file.
        pixels: fingerprint of the decoded image.
        pixels_checksum: BLAKE2b of the decoded image; None in stores of format 1.
        height: in pixels, upright.
        width: in pixels, upright.
        gray: whether the source has a single channel.
        offset: of its first byte.
    """

    file: str
    bytes: int
    mtime_ns: int
    checksum: str
    pixels: str
    height: int
    width: int
    gray: bool
    offset: int
    pixels_checksum: str | None = None

    @property
    def nbytes(self) -> int:
        """What it takes in the store, in bytes."""
        return self.height * self.width * 3

    @property
    def header(self) -> ImageHeader:
        """As its source file's."""
        return ImageHeader(Path(self.file), self.height, self.width, self.gray)


class Store:
    """A packed store on disk; its files are mapped when they are first read, in each process by itself.

    Args:
        folder: of the store.

    Raises:
        UserError: the store is damaged, or of a format that this version does not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["format"] not in _READ:
                raise UserError(f"{folder / INDEX}: a store of format {index['format']}, expected {FORMAT}: pack the set again")
            self.roles = {role: [StoredImage(**image) for image in images] for role, images in index["roles"].items()}
        except FileNotFoundError:
            raise UserError(f"{folder}: no packed store, {INDEX} is missing: pack the set") from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{folder / INDEX}: damaged: pack the set again") from None
        for role, images in self.roles.items():
            expected, file = sum(image.nbytes for image in images), self.file(role)
            found = file.stat().st_size if file.is_file() else None
            if found != expected:
                what = "missing" if found is None else f"{found:,} bytes long"
                raise UserError(f"{file}: {what}, expected {expected:,} bytes: pack the set again")
        self._maps: dict[str, NDArray[np.uint8]] = {}

    def file(self, role: str) -> Path:
        """The file with the pixels of a role."""
        return self.folder / f"{role}.bin"

    def pixels(self, role: str, offset: int, height: int, width: int) -> NDArray[np.uint8]:
        """An image [height, width, 3], uint8, that nothing has been read of yet: reading a part of it reads the rows of that part."""
        if role not in self._maps:
            # A plain array over the map: the arithmetic of np.memmap's own slices would cost more than copying a patch.
            self._maps[role] = np.memmap(self.file(role), np.uint8, mode="r").view(np.ndarray)
        return self._maps[role][offset : offset + height * width * 3].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, object]:
        """Another process maps the files itself."""
        return {**self.__dict__, "_maps": {}}


class PackedImages:
    """The images of a packed store, as training takes them.

    Args:
        store: the store.
        sources: folder of the clean images, for messages.
        scale: HQ pixels for each LQ pixel.
        lq: whether degraded images are taken from the store.

    Raises:
        UserError: clean and degraded images do not fit.
    """

    def __init__(self, store: Store, sources: Path, scale: int, lq: bool) -> None:
        self.store = store
        self.sources = sources
        self.scale = scale
        images = store.roles[HQ]
        self.names = [image.file for image in images]
        self.fingerprints = [image.pixels for image in images]
        partners = store.roles[lq_role(scale)] if lq else None
        # Numbers in arrays: in a forked worker a list of objects would be copied page by page as their reference counts change.
        self._hq = _places(images)
        self._lq = None if partners is None else _places(partners)
        if partners is not None:
            check_pairs([image.header for image in images], [image.header for image in partners], scale)

    def __len__(self) -> int:
        return len(self._hq)

    def name(self, i: int) -> str:
        """The path of the file that clean image i was packed from."""
        return str(self.sources / self.names[i])

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        _, height, width = self._hq[i].tolist()
        return height - height % self.scale, width - width % self.scale

    def whole_size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels."""
        _, height, width = self._hq[i].tolist()
        return height, width

    def fingerprint(self, i: int) -> str:
        """The fingerprint of clean image i, taken when it was packed."""
        return self.fingerprints[i]

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image, all alike."""
        return int(rng.integers(len(self._hq)))

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i, cut to multiples of the scale: [H, W, 3], uint8, read-only."""
        return crop_to_multiples(self.whole_hq(i), self.scale)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i as it was packed: [H, W, 3], uint8, read-only."""
        return self.store.pixels(HQ, *self._hq[i].tolist())

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Degraded image i: [H, W, 3], uint8, read-only; None where the store has none."""
        return None if self._lq is None else self.store.pixels(lq_role(self.scale), *self._lq[i].tolist())

    @property
    def has_lq(self) -> bool:
        """Whether the degraded images are files, too."""
        return self._lq is not None


def _places(images: Sequence[StoredImage]) -> NDArray[np.int64]:
    """[N, 3]: offset, height, width."""
    return np.array([(image.offset, image.height, image.width) for image in images], np.int64)


def pack(folder: Path, roles: Mapping[str, Sequence[Path]], on_image: Callable[[Path], None]) -> int:
    """Write a store, in place of the one that may be there.

    Args:
        folder: of the store.
        roles: the image files of each role, `hq` and lq_role(scale); pairs at the same number.
        on_image: called with each file that has been packed.

    Returns:
        The bytes of the store.

    Raises:
        UserError: a file is damaged or not of a kind that is read, the disk cannot hold the store, its place cannot be written to, or
            another process is packing it.
    """
    headers = {role: [read_header(path) for path in paths] for role, paths in roles.items()}
    needed = sum(header.height * header.width * 3 for images in headers.values() for header in images)
    parent = next(place for place in folder.absolute().parents if place.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"{folder}: packing needs {needed:,} bytes ({needed / 2**30:.1f} GiB) and {free:,} ({free / 2**30:.1f} GiB) are free "
            f"there: make room, or {ELSEWHERE}"
        )
    aside = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_packer(folder):
            try:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                index = {role: _pack_role(aside / f"{role}.bin", images, on_image) for role, images in headers.items()}
                _write_durably(aside / INDEX, json.dumps({"format": FORMAT, "roles": index}))
                _replace(folder, aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: the store cannot be written ({error.strerror}): {ELSEWHERE}") from None
    return needed


@contextlib.contextmanager
def _only_packer(folder: Path) -> Iterator[None]:
    """Keep other processes from packing the same store; a process that is killed releases it.

    Raises:
        UserError: another process is packing it.
    """
    file = folder.with_name(f".{folder.name}.lock")
    try:
        with file_lock(file).acquire(blocking=False):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows keeps a file that is open
                    file.unlink()
    except Timeout:
        raise UserError(f"{folder}: another process is packing this store: wait until it is done, or end it") from None


def _pack_role(file: Path, headers: Sequence[ImageHeader], on_image: Callable[[Path], None]) -> list[dict[str, object]]:
    images, offset = [], 0
    with file.open("wb") as out:
        for header in headers:
            path = header.path
            status = path.stat()
            pixels = read_intact_image(path)
            pixels.tofile(out)
            if pixels.shape[:2] != (header.height, header.width):
                raise UserError(f"{path}: the file was replaced while it was packed: pack the set again")
            image = StoredImage(
                file=path.name,
                bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                checksum=checksum(path),
                pixels=fingerprint(pixels),
                height=header.height,
                width=header.width,
                gray=header.gray,
                offset=offset,
                pixels_checksum=pixels_checksum(pixels),
            )
            images.append(asdict(image))
            offset += image.nbytes
            on_image(path)
        out.flush()
        os.fsync(out.fileno())
    return images


def _write_durably(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _replace(folder: Path, aside: Path) -> None:
    """Put a finished store in its place; a folder cannot take the place of one that is not empty, so the old one goes first."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def pixels_checksum(pixels: NDArray[np.uint8]) -> str:
    """BLAKE2b of the pixels of an image, [H, W, C]."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def checksum(path: Path) -> str:
    """BLAKE2b of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def changes(store: Store, roles: Mapping[str, Sequence[Path]], thoroughly: bool = False) -> list[str]:
    """What of the sources is not as it was packed, a line for each; sources that are gone altogether are not asked for.

    Args:
        store: the store.
        roles: the image files of each role as they are now.
        thoroughly: compare the checksums of all files; otherwise of those only that were touched since and have the same size.
    """
    lines = []
    for role, paths in roles.items():
        stored = {image.file: image for image in store.roles.get(role, [])}
        found = {path.name: path for path in paths}
        lines += [f"{path}: not in the store {store.folder}" for name, path in found.items() if name not in stored]
        lines += [f"{name}: in the store {store.folder}, no longer among its sources" for name in stored if name not in found]
        for name in stored.keys() & found.keys():
            image, path = stored[name], found[name]
            try:
                status = path.stat()
            except OSError:
                lines.append(f"{path}: cannot be read")
                continue
            touched = thoroughly or status.st_mtime_ns != image.mtime_ns
            if status.st_size != image.bytes or (touched and checksum(path) != image.checksum):
                lines.append(f"{path}: changed since it was packed into {store.folder}")
    return sorted(lines)
