"""Every kind of image keeps its kind: channels, depth, alpha, orientation and metadata."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import ExifTags, Image, ImageCms

from irformer.imaging.images import decode_image, read_image, write_image
from irformer.weights.checkpoints import load_checkpoint
from restoring.places import save, tree

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def kinds():
    rng = np.random.default_rng(0)
    rgb, gray = picture(12, 16), picture(12, 16, 1)
    deep = (rgb.astype(np.uint16) * 257 + rng.integers(0, 200, rgb.shape, np.uint16)).clip(0, 65535).astype(np.uint16)
    alpha = rng.integers(0, 256, (12, 16), np.uint8)
    return {
        "rgb": (rgb, None),
        "gray": (gray, None),
        "rgb 16": (deep, None),
        "gray 16": (deep[..., :1], None),
        "rgba": (rgb, alpha),
        "opaque": (rgb, np.full((12, 16), 255, np.uint8)),
        "half transparent": (rgb, np.full((12, 16), 128, np.uint8)),
        "rgba 16": (deep, deep[..., 0]),
    }


def camera_photo(path: Path, orientation: int = 1, **options) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "A. Photographer"
    Image.fromarray(picture(12, 16)).save(path, exif=exif.tobytes(), icc_profile=SRGB, **options)
    return path


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_keeps_its_kind(typed, place, attempts, kind, channels):
    """Against the network itself, applied here in float32."""
    network = load_checkpoint(save(place / "w.safetensors", channels)).network
    pixels, alpha = kinds()[kind]
    write_image(place / "in.png", pixels, alpha)
    decoded = decode_image(place / "in.png")
    assert (decoded.pixels.dtype, decoded.pixels.shape) == (pixels.dtype, pixels.shape)
    status, line, error = typed("in.png", "out.png")
    assert (status, error) == (0, "")
    found = decode_image(place / "out.png")
    most = np.iinfo(pixels.dtype).max
    turned_gray = channels == 1 and pixels.shape[2] == 3
    assert ("1 color image became gray" in line) == turned_gray

    def expected(plane):
        x = torch.from_numpy(np.repeat(plane, channels if plane.shape[2] == 1 else 1, 2).astype(np.float32) / most)
        with torch.no_grad():
            out = network(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1).numpy() * most
        return out.mean(2, keepdims=True) if plane.shape[2] == 1 else out

    assert found.pixels.dtype == pixels.dtype
    if not turned_gray:
        truth = expected(pixels)
        assert found.pixels.shape == truth.shape
        assert np.abs(found.pixels.astype(float) - truth).max() <= 1.01
    else:
        shape = (24, 32, 1) if alpha is None else (24, 32, 3)  # gray with alpha is written as three equal channels
        assert found.pixels.shape == shape
        assert (found.pixels == found.pixels[..., :1]).all()
    if alpha is None or (alpha == most).all():
        assert found.alpha is None or (found.alpha == most).all()
    elif (alpha == alpha[0, 0]).all():
        assert (found.alpha == alpha[0, 0]).all()
    else:
        assert np.abs(found.alpha.astype(float) - expected(alpha[..., None])[..., 0]).max() <= 1.01
    attempts.handled("restore")


def test_a_format_that_cannot_hold_the_image(typed, place, attempts):
    write_image(place / "in.png", *kinds()["rgba"])
    status, _, error = typed("in.png", "out.jpg")
    assert status == 3
    assert error == "failed: in.png: out.jpg: .jpg files do not support 8-bit images with alpha: write a .png file\n"
    assert not (place / "out.jpg").exists()
    attempts.refused("restore")


def test_a_folder_of_every_kind_of_file(typed, place, attempts):
    """Everything that can be restored is, with its kind and its metadata; everything else is named, in the order of the names."""
    folder = place / "all"
    folder.mkdir()
    rgb, gray = picture(12, 16), picture(12, 16, 1)
    deep = rgb.astype(np.uint16) * 257
    alpha = picture(12, 16, 1, seed=7)[..., 0]
    for name in ("a.png", "b.jpg", "c.webp", "d.tif", "e.bmp"):
        write_image(folder / name, rgb)
        write_image(folder / f"gray-{name}", gray)
    for name in ("f.png", "g.tif"):
        write_image(folder / name, deep)
        write_image(folder / f"gray-{name}", deep[..., :1])
    for name in ("h.png", "i.webp", "j.tif"):
        write_image(folder / name, rgb, alpha)
    write_image(folder / "k.png", deep, deep[..., 0])
    for i in range(1, 9):
        camera_photo(folder / f"turned{i}.jpg", i)
    (folder / "notes.txt").touch()
    bad = {"cut.jpg": (folder / "b.jpg").read_bytes()[:100], "empty.png": b"", "scratched.tif": (folder / "g.tif").read_bytes()[:-40]}
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "gone.png").symlink_to("nowhere.png")

    status, line, error = typed("all", "out", "--suffix", "_x2")
    assert (status, line) == (3, "26 images restored x2: out; 5 failed; 1 file that is not an image")
    failed = [word.split(":")[1].strip() for word in error.splitlines()]
    assert failed == [f"all/{name}" for name in ("cmyk.jpg", "cut.jpg", "empty.png", "gone.png", "scratched.tif")]
    assert len(tree(place / "out")) == 26
    for name in tree(place / "out"):
        image = decode_image(place / "out" / name)
        turned = name.startswith("turned") and int(name[6]) >= 5
        assert image.pixels.shape == ((32, 24) if turned else (24, 32)) + ((1,) if name.startswith("gray") and "-c_" not in name else (3,))
        assert (image.pixels.dtype == np.uint16) == (name.removeprefix("gray-")[0] in "fgk")
        assert (image.alpha is not None) == (name[0] in "hijk" and name[1] == "_")
        if name.startswith("turned"):
            with Image.open(place / "out" / name) as photo:
                assert photo.getexif().get(ExifTags.Base.Orientation) == 1
                assert photo.getexif()[ExifTags.Base.Artist] == "A. Photographer"
                assert photo.info["icc_profile"] == SRGB
    upright = read_image(place / "out" / "turned1_x2.png")
    assert upright.shape == (24, 32, 3)
    attempts.handled("restore")
    for _ in failed:
        attempts.refused("restore")


@pytest.mark.parametrize(("kind", "suffix"), [("jpg", ".jpg"), ("webp", ".webp"), ("tif", ".tif"), ("bmp", ".bmp"), ("same", None)])
def test_formats_of_outputs(typed, place, attempts, kind, suffix):
    camera_photo(place / "photos" / "sub" / "photo.jpg", 6)
    status, line, _ = typed("photos", "out", "--format", kind)
    assert (status, "metadata that BMP files cannot hold dropped from 1 image" in line) == (0, kind == "bmp")
    suffixes = {".png", ".jpg"} if suffix is None else {suffix}
    assert {Path(name).suffix for name in tree(place / "out")} == suffixes
    photo = place / "out" / "sub" / f"photo{suffix or '.jpg'}"
    assert read_image(photo).shape == (32, 24, 3)
    with Image.open(photo) as written:
        assert written.info.get("icc_profile") == (None if kind == "bmp" else SRGB)
        assert written.getexif().get(ExifTags.Base.Orientation, 1) == 1
    attempts.handled("restore")


def test_metadata_that_are_dropped_are_counted(typed, place, attempts):
    Image.fromarray(picture(12, 16)).save(place / "photos" / "odd.png", icc_profile=b"no profile")
    assert typed("photos", "out")[1] == "4 images restored x2: out; a damaged ICC profile dropped from 1 image"
    save(place / "gray.safetensors", channels=1)
    camera_photo(place / "photo.png")
    line = typed("photo.png", "gray.png", checkpoint="gray.safetensors")[1]
    assert line.endswith("because the network is for gray images; an ICC profile for other colors dropped from 1 image")
    attempts.handled("restore")
