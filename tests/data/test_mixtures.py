"""How often each image is drawn, and images that stand on both sides."""

import json

import cv2
import numpy as np
import pytest
from conftest import picture
from test_samples import super_resolution

from irformer.data.leaks import require_no_test_images
from irformer.data.mixtures import JoinedImages, chances
from irformer.data.sources import FolderImages, ImagePair, find_training_set, pair_folders
from irformer.data.test_sets import TestSet, find_test_set
from irformer.errors import UserError
from irformer.imaging.images import fingerprint, write_image


@pytest.fixture
def parts(tmp_path):
    """Two sets: of images of 600 and 1800 pixels, and of 2400."""
    for name, sizes in {"a": [(20, 30), (30, 60)], "b": [(40, 60)]}.items():
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            write_image(tmp_path / name / f"{i}.png", picture(*size, seed=len(name) + i))
    return [FolderImages(pair_folders(tmp_path / name, None, 2), 2) for name in "ab"]


@pytest.mark.parametrize(
    ("shares", "draw", "expected"),
    [
        (None, "images", [1 / 3, 1 / 3, 1 / 3]),
        (None, "area", [600 / 4800, 1800 / 4800, 2400 / 4800]),
        ([1, 3], "images", [1 / 8, 1 / 8, 3 / 4]),
        ([1, 3], "area", [1 / 16, 3 / 16, 3 / 4]),
    ],
)
def test_images_are_drawn_by_their_chances(parts, shares, draw, expected):
    joined = JoinedImages(parts, chances(parts, shares, draw))
    drawn = 20_000
    counts = np.bincount([joined.draw(np.random.default_rng((0, index))) for index in range(drawn)], minlength=3)
    for count, chance in zip(counts, expected, strict=True):
        assert abs(count - drawn * chance) < 4 * np.sqrt(drawn * chance * (1 - chance))


def test_joined_sets_are_numbered_one_after_the_other(parts):
    joined = JoinedImages(parts, chances(parts, None, "images"))
    assert [joined.name(i) for i in range(3)] == [parts[0].name(0), parts[0].name(1), parts[1].name(0)]
    assert [joined.size(i) for i in range(3)] == [(20, 30), (30, 60), (40, 60)]
    assert (joined.hq(2) == parts[1].hq(0)).all()


def test_a_fingerprint_is_that_of_the_image_in_all_eight_positions():
    image = picture(20, 31)
    turned = [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]
    assert len({fingerprint(np.ascontiguousarray(view)) for view in turned}) == 1
    other = image.copy()
    other[3, 4, 1] ^= 1
    assert fingerprint(other) != fingerprint(image)


def test_what_was_compared_once_is_not_decoded_again(tmp_path, monkeypatch):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", picture(30, 40, seed=len(name)))
    write_image(tmp_path / "train" / "b.png", picture(30, 44))  # of another size: not even decoded
    images = FolderImages(pair_folders(tmp_path / "train", None, 2), 2)
    test_set = TestSet("own", pair_folders(tmp_path / "test", None, 2), super_resolution())
    cache = tmp_path / "cache.json"
    require_no_test_images(images, [test_set], [], cache)
    assert sorted({key.split("|")[0] for key in json.loads(cache.read_text())}) == [
        str(tmp_path / "test" / "a.png"),
        str(tmp_path / "train" / "a.png"),
    ]

    def refuse(*_arguments: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("irformer.data.leaks.read_image", refuse)
        require_no_test_images(images, [test_set], [], cache)
    write_image(tmp_path / "train" / "a.png", picture(30, 40, seed=4)[:, ::-1])  # now it is the test image, mirrored
    with pytest.raises(UserError, match=r"train/a\.png is the test image own/a"):
        require_no_test_images(images, [test_set], [], cache)
    cache.write_text("damaged")
    with pytest.raises(UserError, match=r"train/a\.png is the test image own/a"):
        require_no_test_images(images, [test_set], [], cache)


def test_png_copies_of_jpeg_test_images_are_found(tmp_path):
    cv2.imwrite(str(tmp_path / "test.jpg"), picture(40, 60)[..., ::-1])
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "copy.png"), cv2.imread(str(tmp_path / "test.jpg")))
    images = FolderImages(pair_folders(tmp_path / "train", None, 2), 2)
    test_set = TestSet("B100", [ImagePair("1", tmp_path / "test.jpg")], super_resolution())
    with pytest.raises(UserError, match=r"copy\.png is the test image B100/1"):
        require_no_test_images(images, [test_set], [], tmp_path / "cache.json")
    require_no_test_images(images, [test_set], ["B100/1"], tmp_path / "cache.json")


def test_published_sets_that_overlap_are_told_and_bsds400_is_clean(data_root, tmp_path):
    """The BSDS500 images that make CBSD68 are also in B100; its other 400 are in neither (facts of the field)."""
    b100 = find_test_set("B100", data_root, super_resolution())
    training = FolderImages(find_training_set("BSDS400", data_root, 2), 2)
    require_no_test_images(training, [b100], [], tmp_path / "cache.json")
    cbsd68 = FolderImages(pair_folders(data_root / "CBSD68" / "HR", None, 2), 2)
    with pytest.raises(UserError, match=r"CBSD68/HR/101085\.jpg is the test image B100/101085 .*, and 67 more: train or test on other"):
        require_no_test_images(cbsd68, [b100], [], tmp_path / "cache.json")
