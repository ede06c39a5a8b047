"""The packed store of a training set: images are decoded once, so reading a patch only reads its rows.

A store is a folder with one file for the clean images (hq.bin), one for the degraded images of each scale that has files (lq_x2.bin), and
index.json. The .bin files contain the uint8 RGB rows of all images consecutively; the index lists the offset and the source file of each
image. A store is written to a temporary folder and renamed, so a store that exists is complete.
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
_READABLE = (1, FORMAT)  # stores of format 1 have no checksums of pixels
INDEX = "index.json"
HQ = "hq"
ELSEWHERE = "choose another location with paths.packed=FOLDER (train.py) and --packed FOLDER (prepare_data.py)"


def lq_role(scale: int) -> str:
    """Return the name that a store uses for the degraded images of a scale."""
    return f"lq_x{scale}"


@dataclass(frozen=True)
class StoredImage:
    """One image of a store.

    Args:
        file: name of the source file.
        bytes: size of the source file.
        mtime_ns: modification time of the source file, in nanoseconds.
        checksum: BLAKE2b of the source file.
        pixels: fingerprint of the decoded image.
        pixels_checksum: BLAKE2b of the decoded image; None in stores of format 1.
        height: height in pixels, after applying the EXIF orientation.
        width: width in pixels, after applying the EXIF orientation.
        gray: whether the source has a single channel.
        offset: offset of the image in the store, in bytes.
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
        """Size of the image in the store, in bytes."""
        return self.height * self.width * 3

    @property
    def header(self) -> ImageHeader:
        """Header of the source file."""
        return ImageHeader(Path(self.file), self.height, self.width, self.gray)


class Store:
    """A packed store on disk; each process memory-maps its files on first access.

    Args:
        folder: folder of the store.

    Raises:
        UserError: the store is missing, damaged or of an unsupported format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["format"] not in _READABLE:
                raise UserError(f"{folder / INDEX}: the store has format {index['format']}, expected {FORMAT}: pack the set again")
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
        """Return the file with the pixels of a role."""
        return self.folder / f"{role}.bin"

    def pixels(self, role: str, offset: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return an image [height, width, 3], uint8, as a view of the memory map: only accessed rows are read from disk."""
        if role not in self._maps:
            # A plain array over the map, because slicing an np.memmap costs more than copying a patch.
            self._maps[role] = np.memmap(self.file(role), np.uint8, mode="r").view(np.ndarray)
        return self._maps[role][offset : offset + height * width * 3].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, object]:
        """Exclude the memory maps: each process maps the files itself."""
        return {**self.__dict__, "_maps": {}}


class PackedImages:
    """The training images in a packed store.

    Args:
        store: the store.
        sources: folder of the clean images, for messages.
        scale: scale factor from LQ to HQ.
        lq: whether to read degraded images from the store.

    Raises:
        UserError: the sizes of clean and degraded images do not match.
    """

    def __init__(self, store: Store, sources: Path, scale: int, lq: bool) -> None:
        self.store = store
        self.sources = sources
        self.scale = scale
        images = store.roles[HQ]
        self.names = [image.file for image in images]
        self.fingerprints = [image.pixels for image in images]
        partners = store.roles[lq_role(scale)] if lq else None
        # Arrays instead of lists of objects, whose memory pages forked workers would copy as reference counts change.
        self._hq = _locations(images)
        self._lq = None if partners is None else _locations(partners)
        if partners is not None:
            check_pairs([image.header for image in images], [image.header for image in partners], scale)

    def __len__(self) -> int:
        return len(self._hq)

    def name(self, i: int) -> str:
        """Return the path of the file from which clean image i was packed."""
        return str(self.sources / self.names[i])

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in pixels, cropped to multiples of the scale."""
        _, height, width = self._hq[i].tolist()
        return height - height % self.scale, width - width % self.scale

    def whole_size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in its file, in pixels."""
        _, height, width = self._hq[i].tolist()
        return height, width

    def fingerprint(self, i: int) -> str:
        """Return the fingerprint of clean image i, computed when it was packed."""
        return self.fingerprints[i]

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the index of a random image, uniformly."""
        return int(rng.integers(len(self._hq)))

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i, cropped to multiples of the scale: [H, W, 3], uint8, read-only."""
        return crop_to_multiples(self.whole_hq(i), self.scale)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i as packed: [H, W, 3], uint8, read-only."""
        return self.store.pixels(HQ, *self._hq[i].tolist())

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Return degraded image i: [H, W, 3], uint8, read-only; None if the store has none."""
        return None if self._lq is None else self.store.pixels(lq_role(self.scale), *self._lq[i].tolist())

    @property
    def has_lq(self) -> bool:
        """Whether degraded images are read from the store."""
        return self._lq is not None


def _locations(images: Sequence[StoredImage]) -> NDArray[np.int64]:
    """Return [N, 3]: offset, height and width of each image."""
    return np.array([(image.offset, image.height, image.width) for image in images], np.int64)


def pack(folder: Path, roles: Mapping[str, Sequence[Path]], on_image: Callable[[Path], None]) -> int:
    """Write a store, replacing an existing one.

    Args:
        folder: folder of the store.
        roles: the image files of each role, `hq` and `lq_role(scale)`, with the images of a pair at the same position.
        on_image: called with each packed file.

    Returns:
        The size of the store in bytes.

    Raises:
        UserError: a file is damaged or of an unsupported kind, the disk has too little free space, the folder is not writable, or another
            process is packing the store.
    """
    headers = {role: [read_header(path) for path in paths] for role, paths in roles.items()}
    needed = sum(header.height * header.width * 3 for images in headers.values() for header in images)
    parent = next(place for place in folder.absolute().parents if place.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"{folder}: packing needs {needed:,} bytes ({needed / 2**30:.1f} GiB), but only {free:,} ({free / 2**30:.1f} GiB) are free: "
            f"free some space, or {ELSEWHERE}"
        )
    temporary = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_packer(folder):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                index = {role: _pack_role(temporary / f"{role}.bin", images, on_image) for role, images in headers.items()}
                _write_durably(temporary / INDEX, json.dumps({"format": FORMAT, "roles": index}))
                _replace(folder, temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the store ({error.strerror}): {ELSEWHERE}") from None
    return needed


@contextlib.contextmanager
def _only_packer(folder: Path) -> Iterator[None]:
    """Prevent other processes from packing the same store; the lock is released even if the process is killed.

    Raises:
        UserError: another process is packing the store.
    """
    file = folder.with_name(f".{folder.name}.lock")
    try:
        with file_lock(file).acquire(blocking=False):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows cannot remove open files
                    file.unlink()
    except Timeout:
        raise UserError(f"{folder}: another process is packing this store: wait for it, or stop it") from None


def _pack_role(file: Path, headers: Sequence[ImageHeader], on_image: Callable[[Path], None]) -> list[dict[str, object]]:
    images, offset = [], 0
    with file.open("wb") as out:
        for header in headers:
            path = header.path
            status = path.stat()
            pixels = read_intact_image(path)
            pixels.tofile(out)
            if pixels.shape[:2] != (header.height, header.width):
                raise UserError(f"{path}: the file was replaced during packing: pack the set again")
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


def _replace(folder: Path, temporary: Path) -> None:
    """Rename a complete store to its final name; the old one is moved first, because a rename cannot replace a folder with content."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def pixels_checksum(pixels: NDArray[np.uint8]) -> str:
    """Return the BLAKE2b checksum of the pixels of an image [H, W, C]."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def checksum(path: Path) -> str:
    """Return the BLAKE2b checksum of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def changes(store: Store, roles: Mapping[str, Sequence[Path]], thoroughly: bool = False) -> list[str]:
    """List the source files that changed since they were packed, one line each.

    Args:
        store: the store.
        roles: the current image files of each role.
        thoroughly: compare the checksums of all files, instead of only those with the same size and a new modification time.
    """
    lines = []
    for role, paths in roles.items():
        stored = {image.file: image for image in store.roles.get(role, [])}
        found = {path.name: path for path in paths}
        lines += [f"{path}: missing from the store {store.folder}" for name, path in found.items() if name not in stored]
        lines += [f"{name}: in the store {store.folder}, but no longer among its sources" for name in stored if name not in found]
        for name in stored.keys() & found.keys():
            image, path = stored[name], found[name]
            try:
                status = path.stat()
            except OSError:
                lines.append(f"{path}: cannot read the file")
                continue
            suspect = thoroughly or status.st_mtime_ns != image.mtime_ns
            if status.st_size != image.bytes or (suspect and checksum(path) != image.checksum):
                lines.append(f"{path}: changed since it was packed into {store.folder}")
    return sorted(lines)
