"""What the image viewer embeds: lossless pixels within a limit, and crops of what differs."""

import base64
import io
import json
import re

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from irformer.errors import UserError
from irformer.reporting.viewer import Version, ViewedImage, viewer


def embedded(images, max_bytes=10_000_000):
    html = str(viewer(images, max_bytes).html)
    return json.loads(re.search(r'<script type="application/json" class="viewer-data">(.*?)</script>', html)[1])["images"]


def pixels(version):
    return np.array(Image.open(io.BytesIO(base64.b64decode(version["source"].partition(",")[2]))))


def test_pixels_are_lossless_and_gray_stays_gray():
    color, gray = picture(20, 30), picture(20, 30, channels=1)
    found = embedded([ViewedImage("one", (Version("a", color), Version("b", gray), Version("c", gray[..., 0])))])[0]
    np.testing.assert_array_equal(pixels(found["versions"][0]), color)
    for version in found["versions"][1:]:
        np.testing.assert_array_equal(pixels(version), gray.repeat(3, 2))
    assert found["crop"] is None


def test_large_images_are_cropped_to_what_differs_and_small_ones_stay_whole():
    truth, small = picture(256, 320), picture(70, 90)
    changed = truth.copy()
    changed[180:220, 30:70] ^= 60
    versions = (Version("input", truth[::4, ::4]), Version("changed", changed), Version("truth", truth))
    found = embedded([ViewedImage("large", versions, "truth"), ViewedImage("small", (Version("a", small),))], max_bytes=150_000)
    crop, width, height = found[0]["crop"], found[0]["width"], found[0]["height"]
    assert crop["left"] <= 30
    assert crop["left"] + width >= 70
    assert crop["top"] <= 180
    assert crop["top"] + height >= 220
    assert (crop["width"], crop["height"]) == (320, 256)
    part = np.s_[crop["top"] : crop["top"] + height, crop["left"] : crop["left"] + width]
    np.testing.assert_array_equal(pixels(found[0]["versions"][1]), changed[part])
    np.testing.assert_array_equal(pixels(found[0]["versions"][0]), truth[part][::4, ::4])
    assert found[1]["crop"] is None
    assert sum(len(version["source"]) for image in found for version in image["versions"]) <= 150_000


def test_names_cannot_leave_the_data():
    html = str(viewer([ViewedImage("</script><b>", (Version("<!--", picture(8, 8)),))]).html)
    assert "</script><b>" not in html
    assert "<!--" not in html


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "found no images, expected at least one"),
        ([ViewedImage("one", ())], "one: found versions none, expected at least one"),
        (
            [ViewedImage("one", (Version("a", picture(8, 8)), Version("a", picture(8, 8))))],
            "one: found versions a, a, expected at least one, with",
        ),
        ([ViewedImage("one", (Version("a", picture(8, 8)),), "truth")], "one: found no version truth, the reference; expected one of a"),
        ([ViewedImage("one", (Version("a", picture(8, 8)), Version("b", picture(3, 3))))], "one: b has 3x3 pixels, expected 8x8"),
        ([ViewedImage("one", (Version("a", picture(8, 8)), Version("b", picture(4, 2))))], "one: b has 2x4 pixels, expected 8x8"),
    ],
)
def test_mistakes_name_the_image(images, message):
    with pytest.raises(UserError, match=re.escape(message)):
        viewer(images)
