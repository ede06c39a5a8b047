"""Image files: one reader for all, which gives the pixels of a file or says by name why it does not."""

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from irformer.errors import UserError
from irformer.imaging.decoding import DecodedImage, Pixels, decode, decode_gray, native_stderr, require_readable
from irformer.imaging.headers import FileHeader, ImageError, parse_header, require_enough_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_MEGAPIXELS = 1000.0
"""The size of image that readers accept where the caller names no other, in millions of pixels."""


@dataclass(frozen=True)
class ImageHeader:
    """What can be known of an image file without decoding it: its size in pixels, upright, and whether it has a single channel."""

    path: Path
    height: int
    width: int
    gray: bool


def list_images(folder: Path, remedy: str) -> list[Path]:
    """The image files of a folder, sorted by name.

    Args:
        folder: the folder.
        remedy: what the user can do where it is missing or empty; ends the message.

    Raises:
        UserError: the folder is missing, cannot be read, or holds no images.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: {remedy}")
    with _naming(folder), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not _is_folder(entry)]
    paths = [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122 - 20,000 files
    if not paths:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) in {folder}: {remedy}")
    return paths


def require_distinct_stems(paths: Sequence[Path]) -> None:
    """See that no two files differ in their suffix alone: partners and results are found by the name without it.

    Raises:
        UserError: `a.png` and `a.jpg` are among the files; the first two are named.
    """
    seen: dict[str, Path] = {}
    doubled = [(seen[path.stem], path) for path in paths if seen.setdefault(path.stem, path) != path]
    if doubled:
        first, second = doubled[0]
        raise UserError(
            f"{first.parent}: {first.name} and {second.name} differ in their suffix alone ({len(doubled)} such), expected one file of each "
            "name: remove or rename one of them"
        )


def printable(name: str) -> str:
    r"""A name that every encoding can write: bytes of a file name that are not UTF-8 are spelled out as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as links in a circle, which are named when they are read
        return False


def read_header(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> ImageHeader:
    """Read the size of an image file, and see that the file is whole and of a kind that `read_image` reads.

    Args:
        path: of the file.
        max_megapixels: the largest image that is accepted, in millions of pixels.

    Raises:
        UserError: the file is unreadable, truncated, too large, or of a kind that would be read wrong (16-bit, CMYK).
    """
    with _opened(path) as file:
        header = _header(file, max_megapixels)
        _require_8_bits(header)
    return ImageHeader(path, *header.upright_size, header.colours == "gray")


def decode_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedImage:
    """Decode an image file of any kind: 8 or 16 bits, gray or RGB, with or without alpha, always upright.

    A palette is looked up, the transparent colour of a PNG (tRNS) becomes an alpha channel, and the orientation that EXIF data or a TIFF
    tag give is applied. Files of fewer than 8 bits are spread over 0 to 255.

    Args:
        path: of the file, which is opened once.
        max_megapixels: the largest image that is decoded, in millions of pixels; checked before anything is allocated for its pixels.

    Returns:
        Pixels [H, W, 3] (RGB) or [H, W, 1] (gray), uint8 or uint16, and alpha [H, W] of the same type or None.

    Raises:
        UserError: the file is unreadable, damaged, too large, or of a kind that is not decoded without loss (CMYK, floating point).
    """
    with _opened(path) as file:
        return decode(*_whole(file, max_megapixels))


def read_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read an image file as RGB [H, W, 3], uint8, upright.

    A gray file gives three equal channels, as OpenCV's colour mode and so all published results; a palette is looked up; an alpha channel
    that is opaque everywhere is dropped.

    Args:
        path: of the file.
        max_megapixels: the largest image that is decoded, in millions of pixels.

    Raises:
        UserError: the file is unreadable, damaged, too large, 16-bit, CMYK, or partly transparent.
    """
    with _opened(path) as file:
        data, header = _whole(file, max_megapixels)
        pixels = _opaque_8_bits(data, header)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def read_gray(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read an image file as gray [H, W, 1], uint8, upright, with the very bytes of cv2.imread(path, cv2.IMREAD_GRAYSCALE).

    A gray file is read as it is. Of a colour file every decoder of OpenCV makes gray in its own way (JPEG gives the Y that it stores, PNG
    rounds otherwise than cvtColor, by one level in half of the pixels), so that turning decoded colour gray would not give these bytes.

    Args:
        path: of the file.
        max_megapixels: the largest image that is decoded, in millions of pixels.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as file:
        data, header = _whole(file, max_megapixels)
        if header.colours == "gray":
            return _opaque_8_bits(data, header)
        if header.alpha:
            _opaque_8_bits(data, header)
        _require_8_bits(header)
        return decode_gray(data, header)


def read_intact_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read an image as `read_image` does, and refuse a JPEG whose damage the decoder has noticed and painted over.

    libjpeg fills in what it cannot decode and writes a warning to the process's standard error, from where it is taken here; so this is
    for preparing data, in one thread, not for training. A damage that leaves a valid stream behind cannot be noticed by anyone.

    Raises:
        UserError: the file is damaged, or of a kind that `read_image` refuses.
    """
    with native_stderr() as warnings:
        pixels = read_image(path, max_megapixels)
    if warnings:
        raise UserError(f"{path}: damaged, the decoder says '{warnings[0]}': restore or remove the file")
    return pixels


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """What two equal images share, also where one is flipped, turned or transposed, and other photographs do not.

    The digest of the number of pixels and of how often each value occurs in each channel of [H, W, 3].
    """
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]) for channel in range(pixels.shape[2])]
    return hashlib.blake2b(np.stack(counts).tobytes(), digest_size=16).hexdigest()


def write_image(path: Path, image: Pixels, alpha: Pixels | None = None) -> None:
    """Write an image in the format of the path's suffix, without loss except as JPEG.

    Args:
        path: PNG and TIFF hold 8 and 16 bits, the other formats 8 bits.
        image: RGB [H, W, 3] or gray [H, W, 1], uint8 or uint16.
        alpha: [H, W], of the same type; PNG, WebP and 8-bit TIFF hold it. Gray with alpha is written as three equal channels.

    Raises:
        UserError: the suffix is unknown, the format cannot hold the image, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown image format; known: {', '.join(SUFFIXES)}")
    if image.dtype == np.uint16 and suffix not in (".png", ".tif", ".tiff"):
        raise UserError(f"{path}: {suffix} files hold 8 bits for each channel, and the image has 16: write a .png or .tif file")
    if alpha is not None and (suffix in (".jpg", ".jpeg", ".bmp") or (suffix != ".png" and image.dtype == np.uint16)):
        raise UserError(f"{path}: {suffix} files hold no {8 * image.dtype.itemsize}-bit image with alpha: write a .png file")
    encoded = _encode(suffix, image, alpha)
    if encoded is None:
        raise UserError(f"{path}: {suffix} files hold no image of {image.shape[1]}x{image.shape[0]} pixels: write a .png file")
    try:
        path.write_bytes(encoded)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): name another place or make room") from None


def _encode(suffix: str, image: Pixels, alpha: Pixels | None) -> bytes | None:
    """The bytes of a file, or None where the format cannot hold an image of this size."""
    if alpha is not None:
        channels = np.dstack([image if image.shape[2] == 3 else np.repeat(image, 3, axis=2), alpha])
        if suffix != ".png":  # OpenCV forgets colours below alpha 0 in WebP, and the kind of the fourth channel in TIFF
            return _encode_by_pillow("TIFF" if suffix.startswith(".tif") else "WEBP", channels)
        image = channels[..., [2, 1, 0, 3]]
    else:
        image = image[..., ::-1]
    try:
        written, encoded = cv2.imencode(suffix, np.ascontiguousarray(image))
    except cv2.error:
        return None
    return encoded.tobytes() if written else None


def _encode_by_pillow(name: str, channels: NDArray) -> bytes | None:
    file = io.BytesIO()
    options = {"compression": "tiff_lzw"} if name == "TIFF" else {"lossless": True, "exact": True}
    try:
        Image.fromarray(channels).save(file, name, **options)
    except ValueError:
        return None
    return file.getvalue()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raise what goes wrong within as one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path}: a link to {path.readlink()}, which does not exist: mend or remove the link") from None
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        if not error.errno:
            raise
        raise UserError(f"{path}: cannot be read ({error.strerror}): restore or remove the file") from None
    except ImageError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise UserError(f"{path}: too large for the memory that is free: cut the image into parts, or free memory") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The regular file at a path, opened once for all that is read of it."""
    with _naming(path):
        # Without O_NONBLOCK, opening a FIFO or a device may wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a special file")
            raise UserError(f"{path}: {kind}, expected an image file: name or put a file there")
        with os.fdopen(descriptor, "rb") as file:
            yield file


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def _header(file: BinaryIO, max_megapixels: float, whole: bool = False) -> FileHeader:
    size = file.seek(0, os.SEEK_END)
    header = parse_header(file, size, whole)
    found = f"{header.width}x{header.height} pixels ({header.width * header.height / 1e6:,.0f} megapixels)"
    if header.width * header.height > max_megapixels * 1e6:
        raise ImageError(
            f"{found}, expected at most {max_megapixels:g} megapixels",
            remedy="cut the image into parts, or accept it by data.max_megapixels where a configuration is read",
        )
    if header.width * header.height > int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", 2**30)) or max(header.upright_size) > 2**20:
        raise ImageError(
            f"{found}, more than OpenCV decodes", remedy="cut the image into parts, or set the variable OPENCV_IO_MAX_IMAGE_PIXELS"
        )
    require_enough_bytes(header, size)
    return header


def _whole(file: BinaryIO, max_megapixels: float) -> tuple[bytes, FileHeader]:
    """The bytes of a file, read once its size is known to be bearable, and their header."""
    _header(file, max_megapixels)
    file.seek(0)
    data = file.read()
    return data, _header(io.BytesIO(data), max_megapixels, whole=True)


def _require_8_bits(header: FileHeader) -> None:
    if header.depth > 8:
        raise ImageError("more than 8 bits for each channel, expected 8", remedy="convert the file")
    require_readable(header)


def _opaque_8_bits(data: bytes, header: FileHeader) -> NDArray[np.uint8]:
    """Pixels [H, W, 1 or 3] of a file that has nothing else."""
    _require_8_bits(header)
    image = decode(data, header)
    if not image.opaque:
        raise ImageError("partly transparent, and restoration knows no background", remedy="flatten the image to RGB")
    return image.pixels  # type: ignore[return-value]
