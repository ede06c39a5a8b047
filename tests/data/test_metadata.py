"""ICC profiles and EXIF data: read from every format, made to fit upright pixels, written to every format, and read back by Pillow."""

import io
import struct

import numpy as np
import pytest
from conftest import picture
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from irformer.errors import UserError
from irformer.imaging.exif import upright_exif
from irformer.imaging.images import decode_image, encode_image, read_image, write_image
from irformer.imaging.metadata import Metadata

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
MAKER_NOTE = bytes(range(256)) * 3
HEIGHT, WIDTH = 24, 40


def exif(orientation: int = 6, order: str = "<") -> Image.Exif:
    """EXIF data as a camera writes them, in each of the directories that hold them; text is UTF-8, which Pillow reads byte by byte."""
    data = Image.Exif()
    data.endian = order
    data[ExifTags.Base.Orientation] = orientation
    data[ExifTags.Base.Make] = b"\xc2\xa9 S\xc3\xb6hne"
    data[ExifTags.Base.XResolution] = 72.0
    data[ExifTags.Base.DateTime] = "2024:05:06 07:08:09"
    data[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExposureTime: IFDRational(1, 250),
        ExifTags.Base.ISOSpeedRatings: 400,
        ExifTags.Base.ExifImageWidth: WIDTH,
        ExifTags.Base.ExifImageHeight: HEIGHT,
        ExifTags.Base.MakerNote: MAKER_NOTE,
        ExifTags.IFD.Interop: {1: "R98"},
    }
    data[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 8.0, 15.5)}
    return data


def camera_file(suffix: str, orientation: int = 6, pixels: np.ndarray | None = None, icc: bytes | None = SRGB) -> bytes:
    file = io.BytesIO()
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
    image = Image.fromarray(picture(HEIGHT, WIDTH) if pixels is None else pixels)
    image.save(file, kind, exif=exif(orientation).tobytes(), icc_profile=icc, **({"lossless": True} if suffix == ".webp" else {}))
    return file.getvalue()


def facts(path) -> dict:
    """What Pillow reads from a file."""
    with Image.open(path) as image:
        found = image.getexif()
        inner, gps = found.get_ifd(ExifTags.IFD.Exif), found.get_ifd(ExifTags.IFD.GPSInfo)
        return {
            "icc": image.info.get("icc_profile"),
            "orientation": found.get(ExifTags.Base.Orientation, 1),
            "make": found.get(ExifTags.Base.Make),
            "date": found.get(ExifTags.Base.DateTime),
            "exposure": float(inner.get(ExifTags.Base.ExposureTime, 0)),
            "speed": inner.get(ExifTags.Base.ISOSpeedRatings),
            "size": (inner.get(ExifTags.Base.ExifImageHeight), inner.get(ExifTags.Base.ExifImageWidth)),
            "maker note": inner.get(ExifTags.Base.MakerNote),
            "interoperability": found.get_ifd(ExifTags.IFD.Interop).get(1),
            "latitude": tuple(float(value) for value in gps.get(ExifTags.GPS.GPSLatitude, ())),
        }


@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_go_from_every_format_to_every_format(tmp_path, source, target):
    (tmp_path / f"in{source}").write_bytes(camera_file(source))
    image = decode_image(tmp_path / f"in{source}")
    assert image.metadata.damaged == ()
    enlarged = np.repeat(np.repeat(image.pixels, 2, 0), 2, 1)
    assert enlarged.shape == (2 * WIDTH, 2 * HEIGHT, 3)
    path = tmp_path / f"out{target}"
    write_image(path, enlarged, None, image.metadata.describing(*enlarged.shape))
    assert facts(path) == {
        "icc": SRGB,
        "orientation": 1,
        "make": "?? S??hne" if source == ".tif" else "Â© SÃ¶hne",  # and only ASCII
        "date": "2024:05:06 07:08:09",
        "exposure": 1 / 250,
        "speed": 400,
        "size": (2 * WIDTH, 2 * HEIGHT),
        "maker note": MAKER_NOTE,
        "interoperability": None if source == ".tif" else "R98",  # Pillow writes this directory to no TIFF
        "latitude": (48.0, 8.0, 15.5),
    }
    again = decode_image(path)
    assert again.pixels.shape == enlarged.shape  # upright, and not turned once more
    if target != ".jpg":
        assert np.array_equal(again.pixels, enlarged)
        assert np.array_equal(read_image(path), enlarged)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_files_hold_metadata(tmp_path, suffix, channels):
    deep = picture(HEIGHT, WIDTH, channels).astype(np.uint16) * 256 + picture(HEIGHT, WIDTH, channels, seed=1)
    icc = SRGB if channels == 3 else GRAY
    path = tmp_path / f"deep{suffix}"
    write_image(path, deep, None, Metadata(icc, exif(1).tobytes()[6:]))
    image = decode_image(path)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, deep)
    assert image.metadata.icc == icc == facts(path)["icc"]
    assert facts(path)["speed"] == 400


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_files_hold_metadata(tmp_path, suffix):
    alpha = picture(HEIGHT, WIDTH, 1, seed=2)[..., 0]
    path = tmp_path / f"clear{suffix}"
    write_image(path, picture(HEIGHT, WIDTH), alpha, Metadata(SRGB, exif(1).tobytes()[6:]))
    image = decode_image(path)
    assert np.array_equal(image.pixels, picture(HEIGHT, WIDTH))
    assert np.array_equal(image.alpha, alpha)
    assert image.metadata.icc == SRGB
    assert facts(path)["latitude"] == (48.0, 8.0, 15.5)


@pytest.mark.parametrize("size", [(1, 1), (700, 800), (3, 70000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs_of_one_and_several_strips_come_back(tmp_path, size, channels):
    image = np.random.default_rng(0).integers(0, 65536, (*size, channels), np.uint16)
    write_image(tmp_path / "a.tif", image)
    assert np.array_equal(decode_image(tmp_path / "a.tif").pixels, image)
    write_image(tmp_path / "b.tif", (image >> 8).astype(np.uint8))
    assert np.array_equal(decode_image(tmp_path / "b.tif").pixels, image >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_data_keep_every_byte_but_orientation_and_size(order):
    before = exif(8, order).tobytes()[6:]
    after = upright_exif(before, 300, 500)
    assert len(after) == len(before)
    found = Image.Exif()
    found.load(after)
    assert found[ExifTags.Base.Orientation] == 1
    assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 500
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    assert 0 < changed <= 1 + 2 * (2 + 4)  # the orientation; kind and value of each side
    assert upright_exif(b"Exif\0\0" + before, 300, 500) == after


def test_the_thumbnail_of_the_image_as_it_was_is_dropped(tmp_path):
    """Its directory follows the first one; the pointer to it becomes zero."""
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    thumbnail = struct.pack("<HHHIII", 1, 0x0201, 4, 1, 4000, 0)
    before = b"II*\0\x08\0\0\0" + first + thumbnail
    found = Image.Exif()
    found.load(before)
    assert found.get_ifd(ExifTags.IFD.IFD1) == {0x0201: 4000}
    found = Image.Exif()
    found.load(upright_exif(before, 10, 10))
    assert found.get_ifd(ExifTags.IFD.IFD1) == {}
    assert found[0x0112] == 1


@pytest.mark.parametrize("data", [b"", b"II*\0", b"no EXIF data at all", b"MM\0*\xff\xff\xff\xff\0\0\0\0", b"II*\0\x08\0\0\0\x01\0\x12"])
def test_exif_data_that_cannot_be_read_are_damaged(data):
    assert upright_exif(data, 10, 10) is None


def test_every_mutation_of_exif_data_is_fitted_or_damaged(attempts):
    """Random bytes, cuts and offsets: no error, and never another length."""
    rng = np.random.default_rng(0)
    whole = exif().tobytes()[6:]
    for i in range(500):
        data = bytearray(whole[: rng.integers(1, len(whole))] if i % 3 == 0 else whole)
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(256)
        fitted = upright_exif(bytes(data), 10, 10)
        assert fitted is None or len(fitted) == len(data)
        attempts.handled("image files")


def test_what_does_not_describe_the_pixels_is_dropped():
    data = Metadata(SRGB, exif().tobytes()[6:])
    assert data.describing(10, 10, 3).icc == SRGB
    assert data.describing(10, 10, 1).icc == b""
    assert Metadata(GRAY).describing(10, 10, 1).icc == GRAY
    assert Metadata().describing(10, 10, 1) == Metadata()


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_gray_that_is_written_as_color_loses_its_gray_profile(tmp_path, suffix):
    alpha = picture(HEIGHT, WIDTH, 1)[..., 0]
    write_image(tmp_path / f"a{suffix}", picture(HEIGHT, WIDTH, 1), alpha, Metadata(GRAY))
    assert facts(tmp_path / f"a{suffix}")["icc"] is None


def test_damaged_metadata_are_named_and_the_image_is_read(tmp_path):
    path = tmp_path / "a.png"
    file = io.BytesIO()
    Image.fromarray(picture(HEIGHT, WIDTH)).save(file, "PNG", exif=b"Exif\0\0no EXIF data", icc_profile=b"no profile")
    path.write_bytes(file.getvalue())
    image = decode_image(path)
    assert np.array_equal(image.pixels, picture(HEIGHT, WIDTH))
    assert image.metadata == Metadata(damaged=("ICC profile", "EXIF data"))


def test_exif_data_that_a_format_cannot_hold_are_an_error(tmp_path):
    long = exif(1)
    long[ExifTags.IFD.Exif][ExifTags.Base.MakerNote] = bytes(70_000)
    data = Metadata(exif=long.tobytes()[6:])
    with pytest.raises(UserError, match=r"a\.jpg: 70,\d{3} bytes of EXIF data, and \.jpg files hold at most 65,533: write a \.png file"):
        encode_image(tmp_path / "a.jpg", picture(HEIGHT, WIDTH), None, data)
    write_image(tmp_path / "a.png", picture(HEIGHT, WIDTH), None, data)
    assert facts(tmp_path / "a.png")["maker note"] == bytes(70_000)
    with pytest.raises(UserError, match=r"a\.tif: its EXIF data cannot be converted to TIFF tags: write a \.png file"):
        encode_image(tmp_path / "a.tif", picture(HEIGHT, WIDTH), None, Metadata(exif=b"no EXIF data"))


def test_quality_sets_the_size_of_jpeg_and_webp_files(tmp_path):
    image = picture(100, 100)
    for suffix in (".jpg", ".webp"):
        sizes = [len(encode_image(tmp_path / f"a{suffix}", image, quality=quality)) for quality in (20, 60, 95)]
        assert sizes == sorted(set(sizes))
    assert encode_image(tmp_path / "a.jpg", image) == encode_image(tmp_path / "a.jpg", image, quality=95)
    write_image(tmp_path / "a.webp", image)
    assert np.array_equal(read_image(tmp_path / "a.webp"), image)
