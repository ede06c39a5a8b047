"""Reading and writing image files; every error names the file and the reason."""

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.imaging.decoding import DecodedImage, Pixels, decode, decode_gray, native_stderr, require_readable
from irformer.imaging.encoding import SUFFIXES, encode, require_format
from irformer.imaging.headers import FileHeader, ImageError, parse_header, require_enough_bytes
from irformer.imaging.metadata import NO_METADATA, Metadata, read_metadata

MAX_MEGAPIXELS = 1000.0
"""Default limit on the size of an image, in millions of pixels."""


class OutOfMemoryError(UserError):
    """The memory that is free does not suffice for an image, but may do so later."""


@dataclass(frozen=True)
class ImageHeader:
    """The properties of an image file that are known without decoding it: its upright size in pixels, and whether it is gray."""

    path: Path
    height: int
    width: int
    gray: bool


def list_images(folder: Path, remedy: str) -> list[Path]:
    """List the image files of a folder, sorted by name.

    Args:
        folder: the folder.
        remedy: end of the error message: what the user can do if the folder is missing or empty.

    Raises:
        UserError: the folder is missing, cannot be read, or contains no images.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {shortened(str(folder), 1000)}: {remedy}")
    with _naming(folder), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not _is_folder(entry)]
    paths = [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122 - 20,000 files
    if not paths:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) in {folder}: {remedy}")
    return paths


def require_distinct_stems(paths: Sequence[Path]) -> None:
    """Check that no two files differ only in their suffix, because pairs and results are matched by the name without it.

    Raises:
        UserError: the files include, for example, `a.png` and `a.jpg`; the message names the first two.
    """
    seen: dict[str, Path] = {}
    doubled = [(seen[path.stem], path) for path in paths if seen.setdefault(path.stem, path) != path]
    if doubled:
        first, second = doubled[0]
        raise UserError(
            f"{first.parent}: {first.name} and {second.name} differ only in their suffix ({len(doubled)} such), expected one file of each "
            "name: remove or rename one of them"
        )


def printable(name: str) -> str:
    r"""Make a file name printable in every encoding: bytes that are not UTF-8 are written as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # for example circular links, which are reported when they are read
        return False


def read_header(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> ImageHeader:
    """Read the size of an image file, and check that it is complete and of a kind that `read_image` supports.

    Args:
        path: path of the file.
        max_megapixels: largest accepted image, in millions of pixels.

    Raises:
        UserError: the file is unreadable, truncated, too large, or of an unsupported kind (16-bit, CMYK).
    """
    with _opened(path) as file:
        header = _header(file, max_megapixels)
        _require_8_bits(header)
    return ImageHeader(path, *header.upright_size, header.colours == "gray")


def decode_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> DecodedImage:
    """Decode an image file: 8 or 16 bits, gray or RGB, with or without alpha, always upright.

    Palettes are resolved, the transparent color of a PNG (tRNS) becomes an alpha channel, and the orientation in EXIF data or a TIFF tag
    is applied. Samples of fewer than 8 bits are scaled to 0 to 255.

    Args:
        path: path of the file, which is opened once.
        max_megapixels: largest accepted image, in millions of pixels; checked before memory is allocated for pixels.

    Returns:
        Pixels [H, W, 3] (RGB) or [H, W, 1] (gray), uint8 or uint16; alpha [H, W] of the same type or None; ICC profile and EXIF data.

    Raises:
        UserError: the file is unreadable, damaged, too large, or cannot be decoded without loss (CMYK, floating point).
    """
    with _opened(path) as file:
        data, header = _whole(file, max_megapixels)
        return replace(decode(data, header), metadata=read_metadata(data, header))


def read_image(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read an image file as RGB [H, W, 3], uint8, upright.

    A gray file gives three equal channels, as in OpenCV's color mode and hence all published results. Palettes are resolved, and a fully
    opaque alpha channel is dropped.

    Args:
        path: path of the file.
        max_megapixels: largest accepted image, in millions of pixels.

    Raises:
        UserError: the file is unreadable, damaged, too large, 16-bit, CMYK, or partly transparent.
    """
    with _opened(path) as file:
        data, header = _whole(file, max_megapixels)
        pixels = _opaque_8_bits(data, header)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def read_gray(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Read an image file as gray [H, W, 1], uint8, upright, byte for byte like cv2.imread(path, cv2.IMREAD_GRAYSCALE).

    Each of OpenCV's decoders converts color to gray in its own way (JPEG returns the stored Y; PNG differs from cvtColor by one level in
    half of the pixels), so converting decoded color would not give the same bytes.

    Args:
        path: path of the file.
        max_megapixels: largest accepted image, in millions of pixels.

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
    """Read an image like `read_image`, but also refuse a JPEG in which the decoder concealed damage.

    libjpeg fills in what it cannot decode and only writes a warning to the process's standard error, which this function captures. Use it
    to prepare data, in a single thread, not in training. Damage that leaves a valid stream cannot be detected.

    Raises:
        UserError: the file is damaged, or of a kind that `read_image` does not support.
    """
    with native_stderr() as warnings:
        pixels = read_image(path, max_megapixels)
    if warnings:
        raise UserError(f"{path}: damaged, the decoder reports '{warnings[0]}': restore or remove the file")
    return pixels


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """Compute a fingerprint of an image [H, W, 3] that is invariant to flips, rotations and transposition.

    It is a digest of the histogram of each channel.
    """
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]) for channel in range(pixels.shape[2])]
    return hashlib.blake2b(np.stack(counts).tobytes(), digest_size=16).hexdigest()


def require_writable_format(path: Path, image: DecodedImage) -> None:
    """Check that the format of a path's suffix can hold an image.

    Raises:
        UserError: it cannot, or it is unknown.
    """
    with _naming(path):
        require_format(_suffix(path), image.pixels.dtype, image.alpha is not None)


def encode_image(
    path: Path, image: Pixels, alpha: Pixels | None = None, metadata: Metadata = NO_METADATA, quality: int | None = None
) -> bytes:
    """Encode an image in the format of the path's suffix; all formats but JPEG are lossless unless a quality is given.

    Args:
        path: path of the file, which is not written.
        image: RGB [H, W, 3] or gray [H, W, 1], uint8 or uint16. PNG and TIFF support 16 bits, the other formats 8 bits.
        alpha: [H, W], of the same type, for PNG, WebP and 8-bit TIFF. Gray with alpha is written as three equal channels.
        metadata: ICC profile and EXIF data, for all formats but BMP.
        quality: 1 to 100, for JPEG (default `irformer.imaging.encoding.JPEG_QUALITY`) and WebP (default lossless).

    Raises:
        UserError: the suffix is unknown, or the format does not support the image.
        OutOfMemoryError: memory does not suffice.
    """
    with _naming(path):
        return encode(_suffix(path), image, alpha, metadata, quality)


def write_image(
    path: Path, image: Pixels, alpha: Pixels | None = None, metadata: Metadata = NO_METADATA, quality: int | None = None
) -> None:
    """Write an image; see `encode_image`.

    Raises:
        UserError: the suffix is unknown, the format does not support the image, or the file cannot be written.
    """
    encoded = encode_image(path, image, alpha, metadata, quality)
    try:
        path.write_bytes(encoded)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): choose another path or free some space") from None


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown image format; known: {', '.join(SUFFIXES)}")
    return suffix


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Convert errors inside the block to a user error that names the file."""
    try:
        yield
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path}: a link to {path.readlink()}, which does not exist: fix or remove the link") from None
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        if not error.errno:
            raise
        raise UserError(f"{path}: cannot be read ({error.strerror}): restore or remove the file") from None
    except ImageError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise OutOfMemoryError(f"{path}: too large for the available memory: cut the image into parts, or free memory") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, once for everything that is read from it."""
    with _naming(path):
        # Without O_NONBLOCK, opening a FIFO or a device may block until its other end is opened.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a special file")
            raise UserError(f"{path}: {kind}, expected an image file: choose another path, or put a file there")
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
            remedy="cut the image into parts, or, in commands with a configuration, raise data.max_megapixels",
        )
    if header.width * header.height > int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", 2**30)) or max(header.upright_size) > 2**20:
        raise ImageError(
            f"{found}, more than OpenCV decodes", remedy="cut the image into parts, or set the variable OPENCV_IO_MAX_IMAGE_PIXELS"
        )
    require_enough_bytes(header, size)
    return header


def _whole(file: BinaryIO, max_megapixels: float) -> tuple[bytes, FileHeader]:
    """Read a whole file and its header, after checking its size."""
    _header(file, max_megapixels)
    file.seek(0)
    data = file.read()
    return data, _header(io.BytesIO(data), max_megapixels, whole=True)


def _require_8_bits(header: FileHeader) -> None:
    if header.depth > 8:
        raise ImageError("more than 8 bits per channel, expected 8", remedy="convert the file")
    require_readable(header)


def _opaque_8_bits(data: bytes, header: FileHeader) -> NDArray[np.uint8]:
    """Decode a file to pixels [H, W, 1 or 3], refusing transparency and more than 8 bits."""
    _require_8_bits(header)
    image = decode(data, header)
    if not image.opaque:
        raise ImageError("partly transparent, expected an opaque image", remedy="flatten the image to RGB")
    return image.pixels  # type: ignore[return-value]
