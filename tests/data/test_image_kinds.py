"""Every kind of image file that Pillow and OpenCV can write: kind x mode x depth x orientation, each read right or refused by name."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageOps

from irformer.errors import UserError
from irformer.imaging.images import decode_image, read_gray, read_header, read_image, write_image

HEIGHT, WIDTH = 12, 20
RGB = Image.fromarray(picture(HEIGHT, WIDTH))
ALPHA = picture(HEIGHT, WIDTH, 1, seed=3)[..., 0]
DEEP = picture(HEIGHT, WIDTH, 4, seed=4).astype(np.uint16) * 256 + picture(HEIGHT, WIDTH, 4, seed=5)
MODES = {
    "L": RGB.convert("L"),
    "LA": Image.fromarray(np.dstack([np.asarray(RGB.convert("L")), ALPHA])),
    "RGB": RGB,
    "RGBA": Image.fromarray(np.dstack([np.asarray(RGB), ALPHA])),
    "P": RGB.quantize(16),
    "1": RGB.convert("1"),
    "I;16": Image.fromarray(np.ascontiguousarray(DEEP[..., 0])),
    "CMYK": RGB.convert("CMYK"),
}
TURNED = range(1, 9)
# What each format holds: the modes, and those of them whose alpha says something.
KINDS = {
    "PNG": ("L", "LA", "RGB", "RGBA", "P", "1", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("L", "RGB", "P", "1"),
}
CASES = [(kind, mode, o) for kind, modes in KINDS.items() for mode in modes for o in (TURNED if kind != "BMP" else (1,))]


def encoded(image: Image.Image, kind: str, orientation: int, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options |= {"exif": exif} if orientation > 1 else {}
    options |= {"lossless": True, "exact": True} if kind == "WEBP" else {}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By the table of the EXIF standard: where the stored rows and columns begin."""
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
        pixels = pixels[:, ::-1] if orientation in (6, 7) else pixels
        pixels = pixels[::-1] if orientation in (7, 8) else pixels
    return pixels


def refused(attempts, path, read, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read(path)
    assert str(raised.value) == f"{path}: {message}"
    attempts.refused("image files")


@pytest.mark.parametrize(("kind", "mode", "orientation"), CASES)
def test_every_kind(tmp_path, attempts, kind, mode, orientation):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(MODES[mode], kind, orientation))
    if mode == "CMYK":
        for read in (decode_image, read_image, read_gray, read_header):
            refused(attempts, path, read, "colors are CMYK, expected RGB or gray: convert the file")
        return

    # From memory: Pillow maps a file of gray rows with the sides of the turned image.
    independent = ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes())))
    expected = np.asarray(independent if mode in ("L", "LA", "RGB", "RGBA", "I;16") else independent.convert("L" if mode == "1" else "RGB"))
    expected = expected.reshape(*expected.shape[:2], -1)
    channels = 1 if mode in ("L", "LA", "1", "I;16") else 3
    if kind != "JPEG":  # and the independent reading is what was written
        written = np.asarray(MODES[mode].convert({"P": "RGB", "1": "L"}.get(mode, mode))).reshape(HEIGHT, WIDTH, -1)
        assert np.array_equal(expected, turned(written, orientation))
    image = decode_image(path)
    assert image.pixels.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    if kind == "JPEG":
        flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
        expected = cv2.imread(str(path), flag).reshape(*expected.shape[:2], -1)[..., ::-1]
    assert np.array_equal(image.pixels, expected[..., :channels])
    assert (image.alpha is None) == (expected.shape[2] == channels)
    assert image.alpha is None or np.array_equal(image.alpha, expected[..., channels])
    attempts.handled("image files")

    if mode == "I;16":
        for read in (read_image, read_gray, read_header):
            refused(attempts, path, read, "more than 8 bits per channel, expected 8: convert the file")
    elif "A" in mode:
        for read in (read_image, read_gray):
            refused(attempts, path, read, "partly transparent, expected an opaque image: flatten the image to RGB")
    else:
        assert np.array_equal(read_image(path), np.broadcast_to(expected, (*expected.shape[:2], 3)))
        gray = read_gray(path)
        (tmp_path / "stored").write_bytes(encoded(MODES[mode], kind, 1))  # OpenCV's gray reader fails on TIFF files that lie on a side
        assert np.array_equal(gray[..., 0], turned(cv2.imread(str(tmp_path / "stored"), cv2.IMREAD_GRAYSCALE), orientation))
        assert gray.shape[:2] == expected.shape[:2] == (read_header(path).height, read_header(path).width)
        assert gray.flags.c_contiguous
        assert read_header(path).gray == (channels == 1)
        attempts.handled("image files")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_kept_and_refused_where_8_are_expected(tmp_path, attempts, suffix, channels):
    path = tmp_path / f"deep.{suffix}"
    if channels == 4 and suffix == "tif":
        refused(
            attempts,
            path,
            lambda path: write_image(path, DEEP[..., :3], DEEP[..., 3]),
            ".tif files do not support 16-bit images with alpha: write a .png file",
        )
        return
    alpha = DEEP[..., 3] if channels == 4 else None
    write_image(path, DEEP[..., : min(channels, 3)], alpha)
    image = decode_image(path)
    assert np.array_equal(image.pixels, DEEP[..., : min(channels, 3)])
    assert (image.alpha is None) if alpha is None else np.array_equal(image.alpha, alpha)
    attempts.handled("image files")
    for read in (read_image, read_gray, read_header):
        refused(attempts, path, read, "more than 8 bits per channel, expected 8: convert the file")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_written_where_the_format_holds_it(tmp_path, attempts, suffix, channels):
    path = tmp_path / f"clear{suffix}"
    alpha = ALPHA.copy()
    alpha[:4] = 0  # colours under full transparency are kept, too
    image = picture(HEIGHT, WIDTH, channels)
    if suffix in (".bmp", ".jpg"):
        refused(
            attempts,
            path,
            lambda path: write_image(path, image, alpha),
            f"{suffix} files do not support 8-bit images with alpha: write a .png file",
        )
        refused(
            attempts,
            path,
            lambda path: write_image(path, DEEP[..., :3]),
            f"{suffix} files have 8 bits per channel, and the image has 16: write a .png or .tif file",
        )
        assert not path.exists()
        return
    write_image(path, image, alpha)
    again = decode_image(path)
    assert np.array_equal(again.pixels, np.broadcast_to(image, (HEIGHT, WIDTH, 3)))
    assert np.array_equal(again.alpha, alpha)
    attempts.handled("image files")
    write_image(path, image, np.full_like(alpha, 255))
    assert np.array_equal(read_image(path), np.broadcast_to(image, (HEIGHT, WIDTH, 3)))
    attempts.handled("image files")


@pytest.mark.parametrize(
    ("mode", "transparent"), [("P", bytes([0, 128, *[255] * 14])), ("L", None), ("RGB", None), ("I;16", None), ("1", 1), ("P", 3)]
)
def test_the_transparent_colour_of_a_png_is_alpha(tmp_path, attempts, mode, transparent):
    image = MODES[mode]
    if transparent is None:
        transparent = image.getpixel((3, 4))
    path = tmp_path / "key.png"
    path.write_bytes(encoded(image, "PNG", 1, transparency=transparent))
    if mode == "P":
        expected = np.asarray(Image.open(path).convert("RGBA"))[..., 3]
    else:
        stored = np.asarray(image.convert("L") if mode == "1" else image).reshape(HEIGHT, WIDTH, -1)
        transparent = 255 * transparent if mode == "1" else transparent  # one bit, spread
        expected = np.where((stored == transparent).all(-1), 0, np.iinfo(stored.dtype).max)
    decoded = decode_image(path)
    assert np.array_equal(decoded.alpha, expected)
    assert 0 < (decoded.alpha == 0).sum() < decoded.alpha.size
    attempts.handled("image files")
    found = (
        "more than 8 bits per channel, expected 8: convert the file"
        if mode == "I;16"
        else "partly transparent, expected an opaque image: flatten the image to RGB"
    )
    for read in (read_image, read_gray):
        refused(attempts, path, read, found)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_data_behind_the_pixels_of_a_png_count_too(tmp_path, attempts, orientation):
    path = tmp_path / "late.png"
    plain = encoded(RGB, "PNG", 1)
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    path.write_bytes(plain[:-12] + chunk(b"eXIf", exif) + plain[-12:])
    assert np.array_equal(read_image(path), turned(np.asarray(RGB), orientation))
    assert (read_header(path).height, read_header(path).width) == read_image(path).shape[:2]
    attempts.handled("image files")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_png_of_few_bits_is_spread_over_all_levels(tmp_path, attempts, bits):
    levels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits
    rows = np.packbits((levels[..., None] >> np.arange(bits)[::-1] & 1).reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    path = tmp_path / "few.png"
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", 1)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    image = decode_image(path)
    assert np.array_equal(image.pixels[..., 0], levels * 255 // (2**bits - 1))
    assert np.array_equal(image.alpha, np.where(levels == 1, 0, 255))
    attempts.handled("image files")
