"""Encoding images as files, with their ICC profile and EXIF data.

OpenCV encodes BMP and PNG, because Pillow cannot write 16-bit color; Pillow encodes JPEG and WebP. Neither writes 16-bit color with EXIF
data and a profile to a TIFF: its strips are encoded here, and Pillow writes its tags.
"""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from irformer.imaging.decoding import Pixels
from irformer.imaging.exif import PREFIX, add_exif_to_tiff
from irformer.imaging.headers import ImageError
from irformer.imaging.metadata import Metadata

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
JPEG_QUALITY = 95
"""Default quality of JPEG files, from 1 to 100."""

_JPEG_MARKER = 65533  # bytes that a segment of a JPEG file can hold
_STRIP = 2**20  # bytes of an uncompressed strip of a TIFF
_PNG_HEADER_END = 33  # the signature and the IHDR chunk


def require_format(suffix: str, dtype: np.dtype, alpha: bool) -> None:
    """Check that a format can hold an image.

    Args:
        suffix: suffix of the file, in lower case, one of `SUFFIXES`.
        dtype: uint8 or uint16.
        alpha: whether there is an alpha channel.

    Raises:
        ImageError: it cannot.
    """
    deep = dtype == np.uint16
    if deep and suffix not in (".png", ".tif", ".tiff"):
        raise ImageError(f"{suffix} files have 8 bits per channel, and the image has 16", remedy="write a .png or .tif file")
    if alpha and (suffix in (".jpg", ".jpeg", ".bmp") or (suffix != ".png" and deep)):
        raise ImageError(f"{suffix} files do not support {16 if deep else 8}-bit images with alpha", remedy="write a .png file")


def encode(suffix: str, image: Pixels, alpha: Pixels | None, metadata: Metadata, quality: int | None) -> bytes:
    """Encode an image as a file.

    Args:
        suffix: suffix of the file, in lower case, one of `SUFFIXES`.
        image: RGB [H, W, 3] or gray [H, W, 1], uint8 or uint16.
        alpha: [H, W], of the same type, or None. Gray with alpha is encoded as three equal channels.
        metadata: profile and EXIF data; BMP holds none.
        quality: from 1 to 100: of JPEG, `JPEG_QUALITY` if None; of WebP, lossless if None. The other formats are lossless.

    Raises:
        ImageError: the format cannot hold the image or its metadata.
        MemoryError: memory does not suffice.
    """
    require_format(suffix, image.dtype, alpha is not None)
    if alpha is not None:
        image = np.dstack([image if image.shape[2] == 3 else np.repeat(image, 3, axis=2), alpha])
        if metadata.icc[16:20] == b"GRAY":
            metadata = Metadata(exif=metadata.exif)
    try:
        if suffix in (".tif", ".tiff"):
            return _encode_tiff(image, metadata)
        if suffix in (".jpg", ".jpeg"):
            return _encode_jpeg(image, metadata, JPEG_QUALITY if quality is None else quality)
        if suffix == ".webp":
            return _encode_webp(image, metadata, quality)
        return _encode_by_opencv(suffix, image, metadata)
    except (cv2.error, ValueError, struct.error) as error:
        if isinstance(error, ImageError):
            raise
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise ImageError(f"{suffix} files do not support images of {size}", remedy="write a .png file") from None


def _encode_by_opencv(suffix: str, image: NDArray, metadata: Metadata) -> bytes:
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[2]]
    written, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., order]))
    if not written:
        raise ValueError
    chunks = b""
    if metadata.icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.exif:
        chunks += _chunk(b"eXIf", metadata.exif)
    if suffix == ".bmp" or not chunks:
        return encoded.tobytes()
    return b"".join([encoded[:_PNG_HEADER_END].tobytes(), chunks, encoded[_PNG_HEADER_END:].data])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _encode_jpeg(image: NDArray, metadata: Metadata, quality: int) -> bytes:
    exif = PREFIX + metadata.exif if metadata.exif else b""
    if len(exif) > _JPEG_MARKER:
        found = f"{len(exif):,} bytes of EXIF data, and .jpg files hold at most {_JPEG_MARKER:,}"
        raise ImageError(found, remedy="write a .png file")
    # Color at full resolution: what a network restored should not be subsampled.
    return _encode_by_pillow("JPEG", image, quality=quality, subsampling="4:4:4", exif=exif, icc_profile=metadata.icc or None)


def _encode_webp(image: NDArray, metadata: Metadata, quality: int | None) -> bytes:
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
        if metadata.icc[16:20] == b"GRAY":
            metadata = Metadata(exif=metadata.exif)
    # Exact: colors of transparent pixels are kept.
    options = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
    return _encode_by_pillow("WEBP", image, **options, exif=metadata.exif, icc_profile=metadata.icc)


def _encode_by_pillow(name: str, image: NDArray, **options: Any) -> bytes:
    file = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)).save(file, name, **options)
    except OSError:  # of the encoder, which writes to memory
        raise ValueError from None
    return file.getvalue()


def _encode_tiff(image: NDArray, metadata: Metadata) -> bytes:
    """Encode an image as a TIFF with strips that are compressed by deflate with horizontal differences."""
    height, width, channels = image.shape
    rows = max(1, _STRIP // (width * channels * image.itemsize))
    strips = [_deflated(image[top : top + rows]) for top in range(0, height, rows)]
    tags = ImageFileDirectory_v2(prefix=b"II")
    if metadata.exif:
        try:
            add_exif_to_tiff(metadata.exif, tags)
            tags.tobytes()
        except Exception:  # Pillow raises anything on damaged data
            raise ImageError("its EXIF data cannot be converted to TIFF tags", remedy="write a .png file") from None
    sizes = [len(strip) for strip in strips]
    tags[256], tags[257], tags[258] = width, height, (8 * image.itemsize,) * channels
    tags[259], tags[317] = 8, 2  # deflate, horizontal differences
    tags[262], tags[277] = 1 if channels == 1 else 2, channels
    tags[273], tags[278], tags[279] = tuple(int(offset) for offset in np.cumsum([0, *sizes[:-1]])), rows, tuple(sizes)
    if channels == 4:
        tags[338] = 2  # alpha, not multiplied into the colors
    if metadata.icc:
        tags.tagtype[34675] = 7
        tags[34675] = metadata.icc
    file = io.BytesIO()
    tags.save(file)  # moves the offsets of the strips behind the tags
    file.write(b"".join(strips))
    return file.getvalue()


def _deflated(rows: NDArray) -> bytes:
    differences = rows.astype(rows.dtype.newbyteorder("<"))
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.tobytes())
