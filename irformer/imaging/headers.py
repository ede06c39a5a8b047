"""Image headers, read from the first and last bytes of a file without decoding it.

There is one parser for each of the five formats. Unlike `PIL.Image.open`, they apply no global limit on the number of pixels; the caller
applies its own.
"""

import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from irformer.imaging.exif import exif_orientation, valid_orientation

_TAIL = 4096  # bytes at the end of a file that are searched for its end marker; some writers append padding
_UNREADABLE = "not a readable image"
_CUT = "truncated, the file ends before its end marker"


class ImageError(ValueError):
    """An image file that cannot be read; the caller, which knows the path, converts it to a `UserError`.

    Args:
        reason: what was found and what was expected.
        remedy: what the user can do.
    """

    def __init__(self, reason: str, remedy: str = "restore or remove the file") -> None:
        super().__init__(f"{reason}: {remedy}")


def damaged() -> ImageError:
    """Return the error for inconsistent image data."""
    return ImageError("cannot be decoded, the file is damaged", remedy="restore or remove it")


@dataclass(frozen=True)
class FileHeader:
    """The header of an image file.

    Args:
        format: PNG, JPEG, BMP, TIFF or WEBP.
        width: in pixels, as stored.
        height: in pixels, as stored.
        colours: `gray`, `rgb`, `palette`, or the name of an unsupported color space.
        depth: bits per sample; fewer than 8 are scaled to 0 to 255 during decoding.
        alpha: whether the file can hold transparent pixels.
        orientation: EXIF or TIFF orientation, 1 (upright) to 8.
        transparent: the gray level or color that a PNG's tRNS chunk declares transparent.
        premultiplied: whether colors are stored multiplied by alpha.
        inverted: whether 0 is white.
        samples: `unsigned`, or another sample format of TIFF.
        exif: EXIF data outside of TIFF tags, as stored.
        icc: ICC profile, as stored: of a PNG, the compressed chunk, if the whole file was parsed.
    """

    format: str
    width: int
    height: int
    colours: str
    depth: int = 8
    alpha: bool = False
    orientation: int = 1
    transparent: tuple[int, ...] | None = None
    premultiplied: bool = False
    inverted: bool = False
    samples: str = "unsigned"
    exif: bytes = b""
    icc: bytes = b""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width in pixels of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def parse_header(file: BinaryIO, size: int, whole: bool = False) -> FileHeader:
    """Parse the header of an image file in any of the five formats, detected from its content.

    Args:
        file: the open file.
        size: size of the file in bytes.
        whole: whether the whole file will be decoded; if so, all checksums of a PNG are verified first.

    Raises:
        ImageError: the file has another format, or is damaged or truncated.
    """
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    parse = next((parse for is_format, parse in _FORMATS if is_format(start)), None)
    if parse is None:
        raise ImageError(f"{_UNREADABLE} ({size} bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about damaged tags, which are either unused here or refused
            header = parse(file, size, whole)
    except ImageError:
        raise
    except OSError as error:
        if error.errno:
            raise  # a fault of the disk, not of the file
        raise ImageError(f"{_UNREADABLE} ({size} bytes)") from None
    except Exception:  # a parser may raise anything on hostile input
        raise ImageError(f"{_UNREADABLE} ({size} bytes)") from None
    if header.width < 1 or header.height < 1:
        raise ImageError(f"{_UNREADABLE} ({header.width}x{header.height} pixels)")
    return header


def require_enough_bytes(header: FileHeader, size: int) -> None:
    """Check that a file of `size` bytes can contain the pixels that its header declares; a decoder allocates all of them first.

    Raises:
        ImageError: the file is too small.
    """
    pixels = header.width * header.height
    # Deflate compresses to 1/1032 at best; JPEG needs at least one bit per block, of at most 32x32 pixels.
    least = {"PNG": pixels * header.depth // 8 // 1032, "JPEG": pixels // (32 * 32 * 8)}.get(header.format, 0)
    if size < least:
        raise ImageError(f"damaged, {size} bytes cannot contain the {header.width}x{header.height} pixels that its header declares")


def _parse_png(file: BinaryIO, size: int, whole: bool) -> FileHeader:
    header, exif, icc, transparent, animated, kind = b"", b"", b"", None, False, b""
    file.seek(8)
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ImageError(_CUT)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" and not whole:
            tail = _tail(file, size)
            if b"IEND\xaeB`\x82" not in tail:
                raise ImageError(_CUT)
            exif = exif or _late_exif(tail)
            break
        if file.tell() + length + 4 > size:
            raise ImageError(_CUT)
        if not whole and kind not in (b"IHDR", b"tRNS", b"eXIf", b"acTL"):
            file.seek(length + 4, 1)
            continue
        body, checksum = file.read(length), file.read(4)
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            raise damaged()
        if kind == b"IHDR":
            header = body
        elif kind == b"eXIf":
            exif = body
        elif kind == b"iCCP":
            icc = body
        elif kind == b"tRNS":
            transparent = body
        elif kind == b"acTL":
            animated = int.from_bytes(body[:4], "big") > 1
    if animated:
        raise ImageError("an animation, expected a single image", remedy="save each frame as a separate file")
    width, height, depth, code = struct.unpack(">IIBB", header[:10])
    colours = {0: "gray", 2: "rgb", 3: "palette", 4: "gray", 6: "rgb"}[code]
    key = None
    if transparent is not None and code in (0, 2):
        key = struct.unpack(f">{len(transparent) // 2}H", transparent)
        if len(key) != code + 1:
            raise ImageError("damaged, the tRNS chunk does not match the kind of image")
    return FileHeader(
        "PNG", width, height, colours,
        depth=depth if code != 3 else 8,
        alpha=code in (4, 6) or transparent is not None,
        orientation=exif_orientation(exif),
        transparent=key,
        exif=exif,
        icc=icc,
    )  # fmt: skip


def _late_exif(tail: bytes) -> bytes:
    """Return the EXIF data of a PNG that stores it after the pixels, as some programs do."""
    place = tail.rfind(b"eXIf")
    if place < 4:
        return b""
    length = int.from_bytes(tail[place - 4 : place], "big")
    body, checksum = tail[place + 4 : place + 4 + length], tail[place + 4 + length : place + 8 + length]
    return body if zlib.crc32(b"eXIf" + body) == int.from_bytes(checksum, "big") and len(checksum) == 4 else b""


def _parse_jpeg(file: BinaryIO, size: int, _whole: bool) -> FileHeader:
    image = JpegImageFile(file)
    width, height = image.size
    if b"\xff\xd9" not in _tail(file, size):
        raise ImageError(_CUT)
    colours = {"L": "gray", "RGB": "rgb"}.get(image.mode, image.mode)
    exif, icc = (image.info.get(name) or b"" for name in ("exif", "icc_profile"))
    return FileHeader("JPEG", width, height, colours, orientation=exif_orientation(exif), exif=exif, icc=icc)


def _parse_bmp(file: BinaryIO, _size: int, _whole: bool) -> FileHeader:
    image = BmpImageFile(file)
    colours = {"1": "gray", "L": "gray", "P": "palette"}.get(image.mode, "rgb")
    return FileHeader("BMP", *image.size, colours, alpha=image.mode == "RGBA")


def _parse_tiff(file: BinaryIO, _size: int, _whole: bool) -> FileHeader:
    image = TiffImageFile(file)
    header = _tiff_header(image)
    if _has_second_page(image):
        raise ImageError("several pages, expected a single image", remedy="save each page as a separate file")
    return header


def _has_second_page(image: TiffImageFile) -> bool:
    """Return whether a second image follows that is more than a thumbnail, which cameras add."""
    try:
        image.seek(1)
    except Exception:  # the end of the file, or trailing bytes that are not an image
        return False
    return not int(image.tag_v2.get(254, 0)) & 1


def _tiff_header(tags: TiffImageFile) -> FileHeader:
    depth = max(tags.tag_v2.get(258, (1,)))
    return FileHeader(
        "TIFF", int(tags.tag_v2[256]), int(tags.tag_v2[257]),
        {"1": "gray", "L": "gray", "LA": "gray", "P": "palette", "RGBA": "rgb", "RGBX": "rgb", "YCbCr": "rgb", "I;16": "gray",
         "I;16B": "gray", "I": "gray", "F": "gray", "RGB": "rgb"}.get(tags.mode, tags.mode),
        depth=depth,
        alpha=tags.mode in ("LA", "RGBA"),
        orientation=valid_orientation(tags.tag_v2.get(274, 1)),
        premultiplied=1 in tags.tag_v2.get(338, ()),
        inverted=tags.tag_v2.get(262) == 0,
        samples={1: "unsigned", 2: "signed integers", 3: "floating-point numbers"}.get(max(tags.tag_v2.get(339, (1,))), "of unknown kind"),
        icc=tags.info.get("icc_profile") or b"",
    )  # fmt: skip


def _parse_webp(file: BinaryIO, size: int, _whole: bool) -> FileHeader:
    _, length, _, kind = struct.unpack("<4sI4s4s", file.read(16))
    if length + 8 > size:
        raise ImageError(_CUT)
    start = file.read(14)[4:]
    width = height = 0
    alpha, exif, icc = False, b"", b""
    if kind == b"VP8X":
        alpha = bool(start[0] & 0x10)
        if start[0] & 0x02:
            raise ImageError("an animation, expected a single image", remedy="save each frame as a separate file")
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (4, 7))
        exif = _webp_chunk(file, size, b"EXIF") if start[0] & 0x08 else b""
        icc = _webp_chunk(file, size, b"ICCP") if start[0] & 0x20 else b""
    elif kind == b"VP8L" and start[0] == 0x2F:
        bits = int.from_bytes(start[1:5], "little")
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif kind == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(start[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    return FileHeader("WEBP", width, height, "rgb", alpha=alpha, orientation=exif_orientation(exif), exif=exif, icc=icc)


def _webp_chunk(file: BinaryIO, size: int, wanted: bytes) -> bytes:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == wanted:
            return file.read(length)
        place += 8 + length + length % 2
    return b""


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - _TAIL))
    return file.read(_TAIL)


_Parser = Callable[[BinaryIO, int, bool], FileHeader]
_FORMATS: tuple[tuple[Callable[[bytes], bool], _Parser], ...] = (
    (lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), _parse_png),
    (lambda start: start.startswith(b"\xff\xd8\xff"), _parse_jpeg),
    (lambda start: start.startswith(b"BM"), _parse_bmp),
    (lambda start: start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _parse_tiff),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP", _parse_webp),
)
