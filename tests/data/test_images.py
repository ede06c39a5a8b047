"""Every kind of image file is read as the protocols read it, or refused by name."""

import cv2
import numpy as np
import pytest
from conftest import picture
from PIL import Image

from irformer.errors import UserError
from irformer.imaging.images import list_images, read_gray, read_header, read_image, read_intact_image, write_image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_files_come_back_as_they_were(tmp_path, suffix):
    image = picture(20, 31)
    path = tmp_path / f"with space ä{suffix}"
    if suffix == ".webp":
        Image.fromarray(image).save(path, lossless=True)
    else:
        write_image(path, image)
    found = read_image(path)
    assert (found == image).all()
    assert found.flags.writeable  # PyTorch warns of memory that it must not write to
    header = read_header(path)
    assert (header.height, header.width) == (20, 31)


def test_jpeg_is_decoded_as_opencv_does(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(40, 50)).save(path, quality=80)
    assert (read_image(path) == cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]).all()


def test_gray_file_gives_three_equal_channels(tmp_path):
    gray = picture(9, 11, 1)[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert (read_image(tmp_path / "gray.png") == gray[..., None]).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_is_what_opencv_reads(tmp_path, suffix, channels):
    """Of each format: the gray of its own decoder, which is not that of the decoded colours (PNG, JPEG)."""
    image = picture(40, 51, channels)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image if channels == 3 else image[..., 0]).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    found = read_gray(path)
    assert found.shape == (40, 51, 1)
    assert np.array_equal(found[..., 0], cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    if channels == 1 and suffix != ".jpg":
        assert np.array_equal(found, image)


def test_gray_of_every_colour_is_opencv_s(tmp_path):
    """All 16.8 million colours, in one file of each of the formats whose gray is computed here."""
    colour = np.arange(1 << 24, dtype=np.uint32).reshape(4096, 4096)
    rgb = np.stack([colour >> 16, colour >> 8 & 255, colour & 255], -1).astype(np.uint8)
    for path in (tmp_path / "all.bmp", tmp_path / "all.tif"):
        write_image(path, rgb)
        assert np.array_equal(read_gray(path)[..., 0], cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def test_a_bmp_with_an_opaque_alpha_channel_is_gray_as_opencv_reads_it(tmp_path):
    rgba = np.dstack([picture(20, 30), np.full((20, 30), 255, np.uint8)])
    (tmp_path / "a.bmp").write_bytes(cv2.imencode(".bmp", rgba[..., [2, 1, 0, 3]])[1].tobytes())
    assert np.array_equal(read_image(tmp_path / "a.bmp"), rgba[..., :3])
    assert np.array_equal(read_gray(tmp_path / "a.bmp")[..., 0], cv2.imread(str(tmp_path / "a.bmp"), cv2.IMREAD_GRAYSCALE))


def test_gray_is_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(12, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert np.array_equal(read_gray(tmp_path / "turned.jpg")[..., 0], cv2.imread(str(tmp_path / "turned.jpg"), 0))
    assert read_gray(tmp_path / "turned.jpg").shape == (20, 12, 1)
    with pytest.raises(UserError, match="no such file"):
        read_gray(tmp_path / "gone.png")


def test_palette_is_looked_up(tmp_path):
    image = Image.fromarray(picture(16, 16)).quantize(32)
    image.save(tmp_path / "palette.png")
    assert (read_image(tmp_path / "palette.png") == np.array(image.convert("RGB"))).all()


def test_alpha_is_dropped_only_where_it_says_nothing(tmp_path):
    rgba = np.dstack([picture(8, 8), np.full((8, 8), 255, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    assert (read_image(tmp_path / "opaque.png") == rgba[..., :3]).all()
    rgba[0, 0, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    with pytest.raises(UserError, match=r"clear\.png: partly transparent.*flatten"):
        read_image(tmp_path / "clear.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    image = Image.fromarray(picture(12, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    upright = read_image(path)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert upright.shape[:2] == ((20, 12) if orientation >= 5 else (12, 20))
    assert (upright == expected).all()
    assert (read_header(path).height, read_header(path).width) == upright.shape[:2]


def test_deep_and_cmyk_files_are_refused_by_name(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), picture(8, 8).astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "deepgray.png"), picture(8, 8, 1).astype(np.uint16) * 257)
    Image.fromarray(picture(8, 8)).convert("CMYK").save(tmp_path / "print.jpg")
    for name, found in [("deep.png", "more than 8 bits"), ("deepgray.png", "more than 8 bits"), ("print.jpg", "CMYK")]:
        with pytest.raises(UserError, match=f"{name}.*{found}.*convert the file"):
            read_header(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file_is_named_without_decoding_it(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(picture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"half\.{suffix}: truncated"):
        read_header(path)


def test_damaged_and_empty_files_are_named(tmp_path):
    path = tmp_path / "damaged.png"
    Image.fromarray(picture(200, 200)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"damaged\.png: cannot be decoded"):
        read_image(path)
    for name, content in [("empty.png", b""), ("text.png", b"no image at all")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: not a readable image \({len(content)} bytes\)"):
            read_header(tmp_path / name)
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def test_folders_are_listed_by_name_and_their_absence_told(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path, "")] == ["a.JPG", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images .* in .*empty: put some there"):
        list_images(tmp_path / "empty", "put some there")
    with pytest.raises(UserError, match=r"no folder .*nowhere: look elsewhere"):
        list_images(tmp_path / "nowhere", "look elsewhere")


def test_the_content_decides_and_not_the_suffix(tmp_path):
    Image.fromarray(picture(40, 50)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.png")
    assert (read_image(tmp_path / "photo.png") == cv2.imread(str(tmp_path / "photo.png"))[..., ::-1]).all()
    (tmp_path / "photo.png").write_bytes((tmp_path / "photo.png").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"photo\.png: truncated"):
        read_header(tmp_path / "photo.png")


def test_links_are_followed_and_those_that_lead_nowhere_named(tmp_path):
    (tmp_path / "real").mkdir()
    write_image(tmp_path / "real" / "a b ü.png", picture(8, 9))
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "link.png").symlink_to("a b ü.png")
    (tmp_path / "real" / "a folder.png").mkdir()
    paths = list_images(tmp_path / "folder", "")
    assert [path.name for path in paths] == ["a b ü.png", "link.png"]
    assert all((read_image(path) == picture(8, 9)).all() for path in paths)
    (tmp_path / "real" / "a b ü.png").unlink()
    with pytest.raises(UserError, match=r"link\.png: a link to a b ü\.png, which does not exist: fix or remove the link"):
        read_header(list_images(tmp_path / "folder", "")[0])


@pytest.mark.parametrize("damage", ["overwritten", "a part cut out"])
def test_a_jpeg_that_the_decoder_can_only_paint_over_is_refused_where_data_is_prepared(tmp_path, damage, capfd):
    path = tmp_path / "scratched.jpg"
    Image.fromarray(picture(200, 200)).save(path, quality=90)
    assert (read_intact_image(path) == read_image(path)).all()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(range(200)) if damage == "overwritten" else b""
    path.write_bytes(bytes(data))
    with pytest.raises(
        UserError, match=r"scratched\.jpg: damaged, the decoder reports 'Corrupt JPEG data: .*': restore or remove the file"
    ):
        read_intact_image(path)
    assert capfd.readouterr().err == ""
    assert read_image(path).shape == (200, 200, 3)  # which training cannot tell from a good one
