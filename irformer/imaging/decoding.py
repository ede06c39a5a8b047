"""Decoding image files, with the decoder that reports damage for each format.

OpenCV decodes PNG, JPEG and WebP, because published results were computed from its pixels. For TIFF files it ignores damage to the
compressed data, drops the alpha channel of gray images and multiplies colors by alpha. Pillow does none of this, but cannot read 16-bit
color. Pillow also decodes BMP files, because it reports truncated ones without a C++ trace on standard error.
"""

import contextlib
import io
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from irformer.imaging.gray import gray_as_opencv_reads
from irformer.imaging.headers import FileHeader, ImageError, damaged
from irformer.imaging.metadata import NO_METADATA, Metadata

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of an image file, upright.

    Args:
        pixels: [H, W, 3], RGB, or [H, W, 1], gray; uint8 or uint16.
        alpha: [H, W], of the same type, from 0 (transparent) to the largest value (opaque); None if the file has no alpha channel.
        metadata: ICC profile and EXIF data, if they were asked for. The orientation is that of the file.
    """

    pixels: Pixels
    alpha: Pixels | None
    metadata: Metadata = NO_METADATA

    @property
    def opaque(self) -> bool:
        """Whether all pixels are fully opaque."""
        return self.alpha is None or bool(self.alpha.min() == np.iinfo(self.alpha.dtype).max)


def decode(data: bytes, header: FileHeader) -> DecodedImage:
    """Decode the bytes of an image file.

    Args:
        data: content of the file.
        header: header of the same file.

    Raises:
        ImageError: the data are damaged, or of a kind that would be decoded incorrectly.
    """
    require_readable(header)
    if header.format in ("TIFF", "BMP"):
        stored = _decode_deep_tiff(data, header) if header.colours == "rgb" and header.depth == 16 else _decode_by_pillow(data, header)
    else:
        stored = _decode_by_opencv(data, header)
    _require_size(stored.pixels, header)
    if header.premultiplied and not stored.opaque:
        raise ImageError("colors are multiplied by alpha, expected unassociated alpha", remedy="convert the file")
    return stored


def decode_gray(data: bytes, header: FileHeader) -> NDArray[np.uint8]:
    """Decode an opaque 8-bit color file as gray [H, W, 1], upright, by OpenCV's conversion for its format.

    Raises:
        ImageError: the data are damaged.
    """
    if header.format in ("TIFF", "BMP"):
        image = decode(data, header)  # OpenCV does not detect damage in a TIFF
        if header.format == "TIFF" or image.alpha is None:
            return gray_as_opencv_reads(image.pixels)  # type: ignore[arg-type]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise damaged()
    gray = upright(np.asarray(pixels, np.uint8)[..., None], header.orientation)
    _require_size(gray, header)
    return np.ascontiguousarray(gray)


def _require_size(pixels: NDArray, header: FileHeader) -> None:
    if pixels.shape[:2] != header.upright_size:
        raise ImageError("damaged, header and pixels differ in size")


def require_readable(header: FileHeader) -> None:
    """Check that a file is of a kind that can be decoded without loss.

    Raises:
        ImageError: it is not; the message says what was found.
    """
    if header.colours not in ("gray", "rgb", "palette"):
        raise ImageError(f"colors are {header.colours}, expected RGB or gray", remedy="convert the file")
    if header.samples != "unsigned" or header.depth > 16:
        found = f"{header.depth}-bit samples" if header.samples == "unsigned" else f"samples are {header.samples}"
        raise ImageError(f"{found}, expected 8 or 16 bits unsigned", remedy="convert the file")


def upright(pixels: NDArray, orientation: int) -> NDArray:
    """Rotate or flip stored pixels [H, W, ...] by their EXIF orientation, 1 to 8."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))


def _decode_by_opencv(data: bytes, header: FileHeader) -> DecodedImage:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise damaged()
    image, alpha = _split(pixels)
    if header.colours == "gray" and image.shape[2] == 3:
        image = image[..., :1]  # OpenCV returns gray with alpha as four channels
    if header.transparent is not None:
        alpha = _alpha_of(image, header)
    return _turned(image, alpha, header.orientation)


def _split(pixels: NDArray) -> tuple[Pixels, Pixels | None]:
    """Convert OpenCV's [H, W], BGR or BGRA to RGB or gray [H, W, C] and alpha."""
    if pixels.ndim == 2:
        return pixels[..., None], None
    if pixels.shape[2] == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), pixels[..., 3]  # type: ignore[return-value]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None  # type: ignore[return-value]


def _alpha_of(image: Pixels, header: FileHeader) -> Pixels:
    """Return the alpha channel that a single transparent color defines."""
    spread = 255 // (2**header.depth - 1) if header.depth < 8 else 1
    opaque = (image != np.array(header.transparent) * spread).any(-1)
    return opaque.astype(image.dtype) * image.dtype.type(np.iinfo(image.dtype).max)


def _turned(image: Pixels, alpha: Pixels | None, orientation: int) -> DecodedImage:
    image = np.ascontiguousarray(upright(image, orientation))
    return DecodedImage(image, None if alpha is None else np.ascontiguousarray(upright(alpha, orientation)))


def _decode_by_pillow(data: bytes, header: FileHeader) -> DecodedImage:
    image: ImageFile
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged pixels are refused below, and damaged tags that do not affect pixels are harmless
            image = (TiffImageFile if header.format == "TIFF" else BmpImageFile)(io.BytesIO(data))
            image.load()
            turned = ImageOps.exif_transpose(image)  # since Pillow 9, loading a TIFF rotates it and clears the tag
    except MemoryError:
        raise
    except Exception:  # a decoder may raise anything on hostile input
        raise damaged() from None
    mode = {"1": "L", "P": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}.get(turned.mode, turned.mode)
    pixels = np.array(turned.convert(mode) if mode != turned.mode else turned)
    if header.depth == 16:
        pixels = pixels.astype(np.uint16)
        pixels = 65535 - pixels if header.inverted else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colours = 1 if header.colours == "gray" else 3
    alpha = pixels[..., colours] if pixels.shape[2] > colours else None
    return DecodedImage(np.ascontiguousarray(pixels[..., :colours]), None if alpha is None else np.ascontiguousarray(alpha))


def _decode_deep_tiff(data: bytes, header: FileHeader) -> DecodedImage:
    """Decode 16-bit RGB, which Pillow cannot read; OpenCV reports damage only on standard error."""
    with native_stderr() as lines:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
    if pixels is None or any("ERROR" in line for line in lines) or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise damaged()
    return _turned(*_split(pixels), orientation=1)


STDERR_LOCK = threading.RLock()
"""Held while file descriptor 2 is redirected: a thread that writes to standard error at the same time must hold it as well."""


@contextlib.contextmanager
def native_stderr() -> Iterator[list[str]]:
    """Collect the lines that libraries write to file descriptor 2; the list is filled when the block exits."""
    with STDERR_LOCK, _redirected_stderr() as lines:
        yield lines


@contextlib.contextmanager
def _redirected_stderr() -> Iterator[list[str]]:
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
