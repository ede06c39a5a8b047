"""Image files: one reader for all, which gives the pixels of a file or says by name why it does not."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from irformer.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# The ends of complete files; a file without its end was cut short. Other formats are checked when they are decoded.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_EXIF_ORIENTATION = 0x0112


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
        UserError: the folder is missing, or holds no images.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: {remedy}")
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    paths = [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122 - 20,000 files
    if not paths:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) in {folder}: {remedy}")
    return paths


def read_header(path: Path) -> ImageHeader:
    """Read the size of an image file, and see that the file is whole and of a kind that is read without loss.

    Raises:
        UserError: the file is unreadable, truncated, or of a kind that would be read wrong (16-bit, CMYK).
    """
    with _opening(path):
        try:
            with Image.open(path) as image:
                _check_kind(path, image)
                width, height = image.size
                turned = _orientation(image) >= 5
                gray = image.mode in ("1", "L", "LA")
                end = _ENDS.get(image.format or "")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            if isinstance(error, UserError) or getattr(error, "errno", None):
                raise
            raise UserError(f"{path}: not a readable image ({path.stat().st_size} bytes): restore or remove the file") from None
        if end and not _ends_with(path, end):
            raise UserError(f"{path}: truncated, the file stops before its end marker: restore or remove the file")
    return ImageHeader(path, *((width, height) if turned else (height, width)), gray)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB [H, W, 3], uint8, upright.

    A gray file gives three equal channels, as OpenCV's colour mode and so all published results; a palette is looked up; an alpha channel
    that is opaque everywhere is dropped.

    Raises:
        UserError: the file is unreadable, truncated, 16-bit, CMYK, or partly transparent.
    """
    header = read_header(path)
    with _opening(path):
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        orientation = _orientation_of(path)
    if pixels is None:
        raise UserError(f"{path}: cannot be decoded, the file is damaged: restore or remove it")
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: {8 * pixels.dtype.itemsize} bits for each channel, expected 8: convert the file")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif pixels.shape[2] == 4:
        if pixels[..., 3].min() < 255:
            raise UserError(f"{path}: partly transparent, and restoration knows no background: flatten the image to RGB")
        pixels = pixels[..., 2::-1]
    else:
        pixels = pixels[..., ::-1]
    upright = _upright(pixels.astype(np.uint8, copy=False), orientation)
    assert upright.shape[:2] == (header.height, header.width)
    return np.ascontiguousarray(upright)


def read_gray(path: Path) -> NDArray[np.uint8]:
    """Read an image file as gray [H, W, 1], uint8, upright, with the very bytes of cv2.imread(path, cv2.IMREAD_GRAYSCALE).

    A gray file is read as it is. Of a colour file every decoder of OpenCV makes gray in its own way (JPEG gives the Y that it stores, PNG
    rounds otherwise than cvtColor, by one level in half of the pixels), so that turning decoded colour gray would not give these bytes.

    Raises:
        UserError: the file is unreadable, truncated, 16-bit, or CMYK.
    """
    header = read_header(path)
    with _opening(path):
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise UserError(f"{path}: cannot be decoded, the file is damaged: restore or remove it")
    assert pixels.shape == (header.height, header.width)
    return np.asarray(pixels, np.uint8)[..., None]


def read_intact_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as `read_image` does, and refuse a JPEG whose damage the decoder has noticed and painted over.

    libjpeg fills in what it cannot decode and writes a warning to the process's standard error, from where it is taken here; so this is
    for preparing data, in one thread, not for training. A damage that leaves a valid stream behind cannot be noticed by anyone.

    Raises:
        UserError: the file is damaged, or of a kind that `read_image` refuses.
    """
    with _native_stderr() as warnings:
        pixels = read_image(path)
    if warnings:
        raise UserError(f"{path}: damaged, the decoder says '{warnings[0]}': restore or remove the file")
    return pixels


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """What two equal images share, also where one is flipped, turned or transposed, and other photographs do not.

    The digest of the number of pixels and of how often each value occurs in each channel of [H, W, 3].
    """
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]) for channel in range(pixels.shape[2])]
    return hashlib.blake2b(np.stack(counts).tobytes(), digest_size=16).hexdigest()


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image, RGB [H, W, 3] or gray [H, W, 1], uint8, in the format of the path's suffix.

    Raises:
        UserError: OpenCV does not know the suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown image format; known: {', '.join(SUFFIXES)}")
    _, encoded = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(image[..., ::-1]))
    path.write_bytes(encoded.tobytes())


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Tell by name why a file cannot be opened, at whichever of its readings that comes up: files also go while they are used."""
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


@contextlib.contextmanager
def _native_stderr() -> Iterator[list[str]]:
    """Collect the lines that libraries write to file descriptor 2 within; they are in the list when the block is left."""
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
    finally:
        os.close(kept)


def _check_kind(path: Path, image: Image.Image) -> None:
    if image.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        raise UserError(f"{path}: colours are {image.mode}, expected RGB or gray: convert the file")
    if image.mode.startswith(("I", "F")) or (image.format == "PNG" and _png_depth(path) == 16):
        raise UserError(f"{path}: more than 8 bits for each channel, expected 8: convert the file")


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]


def _ends_with(path: Path, end: bytes) -> bool:
    """Whether the end marker stands in the last bytes; some writers add padding behind it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return end in file.read()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8. A PNG without it is not asked, since Pillow would decode the whole file to look."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _orientation_of(path: Path) -> int:
    with Image.open(path) as image:
        return _orientation(image)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn the pixels as the file's EXIF orientation says: cameras store what the sensor saw."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    quarter_turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.rot90(pixels, quarter_turns)
