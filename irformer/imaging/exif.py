"""EXIF data: reading the orientation, resetting it once the pixels are upright, and moving the data into and out of TIFF tags.

Data of JPEG, PNG and WebP files are changed in place: everything else keeps its bytes and its offsets, on which maker notes depend. In a
TIFF, EXIF data are tags among those that describe the pixels; Pillow converts them.
"""

import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

PREFIX = b"Exif\0\0"
_ORIENTATION, _EXIF, _GPS, _INTEROPERABILITY, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0x8825, 0xA005, 0xA002, 0xA003
_SHORT, _LONG = 3, 4
# Tags of a TIFF's first directory that describe the photo instead of how its pixels are stored: description, make, model, resolution,
# software, date, artist, host computer and copyright.
_DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 (upright) to 8; 1 if there is none."""
    exif = exif.removeprefix(PREFIX)
    order = _byte_order(exif)
    for place in _entries(exif, order, _first_directory(exif, order)):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place)
        if tag == _ORIENTATION and kind == _SHORT:
            return valid_orientation(value)
    return 1


def valid_orientation(value: object) -> int:
    """Return an orientation if it is one of the eight that EXIF defines, and otherwise 1 (upright)."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_exif(exif: bytes, height: int, width: int) -> bytes | None:
    """Return EXIF data for an upright image of another size: orientation 1, the size in pixels, and no thumbnail.

    Args:
        exif: EXIF data, with or without `PREFIX`.
        height: in pixels, recorded only if the data record a size.
        width: in pixels.

    Returns:
        EXIF data of the same length, without `PREFIX`; None if the data cannot be read.
    """
    changed = bytearray(exif.removeprefix(PREFIX))
    order = _byte_order(changed)
    first = _first_directory(changed, order)
    entries = list(_entries(changed, order, first))
    if not entries:
        return None
    inner: list[int] = []
    for place in entries:
        tag, kind, _, value = struct.unpack_from(f"{order}HHII", changed, place)
        if tag == _ORIENTATION and kind == _SHORT:
            struct.pack_into(f"{order}H", changed, place + 8, 1)
        elif tag == _EXIF:
            inner = list(_entries(changed, order, value))
    for place in inner:
        tag, kind = struct.unpack_from(f"{order}HH", changed, place)
        if tag in (_WIDTH, _HEIGHT) and kind in (_SHORT, _LONG):
            struct.pack_into(f"{order}HII", changed, place + 2, _LONG, 1, width if tag == _WIDTH else height)
    following = entries[-1] + 12  # the thumbnail's directory, of the image as it was
    if following + 4 <= len(changed):
        struct.pack_into(f"{order}I", changed, following, 0)
    return bytes(changed)


def exif_of_tiff(image: TiffImageFile) -> bytes:
    """Return the EXIF data in the tags of a TIFF file, without those that describe its pixels; empty if there are none."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in image.tag_v2:
            kept[tag] = _bytes_of_text(image.tag_v2[tag])
    for tag in (_EXIF, _GPS):
        directory = _directory(image.getexif(), tag)
        if directory:
            kept[tag] = directory
    return kept.tobytes().removeprefix(PREFIX) if len(kept) else b""


def add_exif_to_tiff(exif: bytes, tags: ImageFileDirectory_v2) -> None:
    """Add EXIF data to the tags of a TIFF file that will be written.

    Raises:
        Exception: of any kind, if the data are damaged.
    """
    found = Image.Exif()
    found.load(exif)
    for tag in _DESCRIPTIVE:
        if tag in found:
            tags[tag] = _bytes_of_text(found[tag])
    for tag in (_EXIF, _GPS):
        directory = _directory(found, tag)
        if directory:
            tags[tag] = directory


def _bytes_of_text(value: Any) -> Any:
    """Return the bytes of a tag's text, whatever its encoding; Pillow reads a character for each byte, but writes only ASCII."""
    return value.encode("latin-1") if isinstance(value, str) else value


def _directory(exif: Image.Exif, tag: int) -> dict[int, Any]:
    """Return a nested directory of EXIF data; the one that nests in it is included by value instead of its offset."""
    directory = dict(exif.get_ifd(tag))
    if directory.pop(_INTEROPERABILITY, None) is not None:
        nested = dict(exif.get_ifd(_INTEROPERABILITY))
        directory |= {_INTEROPERABILITY: nested} if nested else {}
    return directory


def _byte_order(exif: bytes | bytearray) -> str:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(exif[:4]), "")


def _first_directory(exif: bytes | bytearray, order: str) -> int:
    return struct.unpack_from(f"{order}I", exif, 4)[0] if order and len(exif) >= 10 else len(exif)


def _entries(exif: bytes | bytearray, order: str, directory: int) -> Iterator[int]:
    """Yield the places of the complete entries of a directory, of 12 bytes each."""
    if directory + 2 > len(exif):
        return
    for i in range(struct.unpack_from(f"{order}H", exif, directory)[0]):
        place = directory + 2 + 12 * i
        if place + 12 > len(exif):
            return
        yield place
