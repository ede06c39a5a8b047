"""Folders and sets as people leave them: names twice, partners that are ambiguous, test images among the training images, tiny images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from test_samples import super_resolution
from test_test_sets import task_of

from irformer.config.compose import compose
from irformer.config.image_sets import find_test_sets, training_data
from irformer.data.leaks import require_no_test_images
from irformer.data.packing import folder_source, open_source, pack_set, verify_set
from irformer.data.sources import FolderImages, pair_folders
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate, results_record
from irformer.evaluation.restorers import BicubicRestorer
from irformer.imaging.images import write_image


def filled(folder: Path, *names: str, size: tuple[int, int] = (40, 48)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_image(folder / name, picture(*size, seed=len(name)))
    return folder


def refusal(attempts, function, *arguments) -> str:
    with pytest.raises(UserError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    attempts.refused("data sets")
    return str(raised.value)


def test_two_files_of_one_name_are_refused_wherever_a_folder_is_a_set(tmp_path, attempts):
    hq, single = filled(tmp_path / "hq", "a.png", "a.jpg", "b.png"), filled(tmp_path / "single", "a.png", "b.png")
    lq = filled(tmp_path / "lq", "a.png", "b.bmp", "b.tif", size=(20, 24))
    message = "a.jpg and a.png differ only in their suffix (1 such), expected one file of each name: remove or rename one of them"
    task = super_resolution()
    cfg = compose("train", ["data=folder", f"data.path={hq}", "norm=iln", "model=swinir_tiny"])
    for function, arguments in [
        (pair_folders, (hq, None, 2)),
        (training_data, (cfg, task)),
        (find_test_set, (str(hq), tmp_path, task)),
        (pack_set, (str(hq), tmp_path, None, None, print)),
        (verify_set, (str(hq), tmp_path, None, None, print)),
    ]:
        assert refusal(attempts, function, *arguments) == f"{hq}: {message}"
    assert not (tmp_path / "packed").exists()
    assert refusal(attempts, pair_folders, single, lq, 2) == f"{lq}: {message.replace('a.jpg', 'b.bmp').replace('a.png', 'b.tif')}"


def test_a_degraded_partner_that_is_ambiguous_is_refused(tmp_path, attempts):
    hq, lq = filled(tmp_path / "hq", "a.png", "b.png"), filled(tmp_path / "lq", "a.png", "ax2.png", "b.png", size=(20, 24))
    found = refusal(attempts, pair_folders, hq, lq, 2)
    counterparts = f"{lq}: ax2.png and a.png are both degraded counterparts of {hq / 'a.png'}"
    assert found == f"{counterparts} (1 in total), expected one: remove the other"
    (lq / "ax2.png").unlink()
    assert [pair.lq for pair in pair_folders(hq, lq, 2)] == [lq / "a.png", lq / "b.png"]
    attempts.handled("data sets")
    (lq / "a.png").rename(lq / "ax2.png")
    filled(hq, "ax2.png")
    found = refusal(attempts, pair_folders, hq, lq, 2)
    counterpart = f"{lq / 'ax2.png'}: is the degraded counterpart of both a.png and ax2.png"
    assert found == f"{counterpart} (1 in total), expected one clean image: rename the images"


def test_test_sets_of_one_name_are_told_apart_and_no_set_is_measured_twice(tmp_path, attempts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "a" / "val", "1.png", "2.png")
    filled(tmp_path / "b" / "val", "3.png")
    filled(tmp_path / "c", "4.png")
    task = super_resolution()
    sets = find_test_sets(["a/val", "b/val", "c"], tmp_path, task)
    record = results_record("bicubic", task, "none", [evaluate(BicubicRestorer(2), test_set) for test_set in sets])
    assert {name: result["images"] for name, result in record["test_sets"].items()} == {"a/val": 2, "b/val": 1, "c": 1}
    attempts.handled("data sets")
    for again in ("c", "./c", str(tmp_path / "c")):
        found = refusal(attempts, find_test_sets, ["c", again], tmp_path, task)
        assert found == f"test_sets: c and {again} are the same images, expected each test set once: remove one of them"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("scale", "test_scale", "trained", "tested", "leaked"),
    [
        (2, 2, (51, 49), (50, 48), True),  # the test set was cut, the training set was not
        (3, 3, (50, 49), (48, 48), True),
        (2, 3, (50, 49), (48, 48), True),  # at the scale of the test set
        (2, 2, (51, 49), (48, 48), True),  # GTmod12
        (2, 2, (48, 48), (50, 49), True),  # the training set was cut
        (2, 2, (50, 49), (50, 49), True),
        (2, 2, (51, 49), (49, 47), False),  # no cut that anyone makes
    ],
)
def test_test_images_that_were_cut_are_found_among_the_training_images(
    tmp_path, attempts, packed, turned, scale, test_scale, trained, tested, leaked
):
    original = picture(51, 49)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    in_training = original[: trained[0], : trained[1]]
    in_test = original[: tested[0], : tested[1]]
    if turned and min(trained) <= min(tested):
        in_training = np.rot90(in_training)  # a part is cut from the top left, so that the smaller one may be turned
    elif turned:
        in_test = np.rot90(in_test)
    write_image(tmp_path / "train" / "t.png", in_training)
    write_image(tmp_path / "train" / "other.png", picture(*trained, seed=1))
    write_image(tmp_path / "test" / "e.png", in_test)
    if packed:
        pack_set(str(tmp_path / "train"), tmp_path, tmp_path / "stores", None, lambda *_: None)
    source = folder_source(tmp_path / "train", None, scale)
    images, _ = open_source(source, tmp_path / "stores" if packed else None, scale, 0)
    test_set = find_test_set(str(tmp_path / "test"), tmp_path, super_resolution(test_scale))
    arguments = (images, [test_set], [], tmp_path / "cache.json")
    for _ in range(2):  # decoded, and from the fingerprints that were kept
        if leaked:
            found = refusal(attempts, require_no_test_images, *arguments)
            assert found.startswith(
                f"training image {tmp_path / 'train' / 't.png'} is the test image test/e ({tmp_path / 'test' / 'e.png'}): "
            )
        else:
            require_no_test_images(*arguments)
            attempts.handled("data sets")


def test_a_leaked_image_of_a_set_with_a_path_for_a_name_can_be_allowed(tmp_path, attempts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/val", "b/val"):
        filled(tmp_path / name, "1.png")
    write_image(tmp_path / "b" / "val" / "1.png", picture(40, 48, seed=9))
    sets = find_test_sets(["a/val", "b/val"], tmp_path, super_resolution())
    images = FolderImages(pair_folders(tmp_path / "a" / "val", None, 2), 2)
    found = refusal(attempts, require_no_test_images, images, sets, [], tmp_path / "cache.json")
    assert found.endswith("allow it with data.allow_test_images=[a/val] (a set) or [a/val/1] (an image)")
    for allowed in ("a/val", "a/val/1"):
        require_no_test_images(images, sets, [allowed], tmp_path / "cache.json")
        attempts.handled("data sets")
    assert len(json.loads((tmp_path / "cache.json").read_text())) > 0


@pytest.mark.parametrize(
    ("task", "size", "least", "metrics"),
    [
        ("denoise_color_25", (1, 40), None, "psnr_rgb"),
        ("jpeg_gray_10", (10, 40), 11, "psnr, ssim, psnr_b"),
        ("sr_x2", (1, 40), 16, "psnr_y, ssim_y"),
        ("sr_x2", (15, 40), 16, "psnr_y, ssim_y"),
        ("sr_x4", (19, 40), 20, "psnr_y, ssim_y"),
    ],
)
def test_test_images_that_are_too_small_to_be_measured_are_named(tmp_path, attempts, task, size, least, metrics):
    task = task_of(task)
    protocol = task.protocol
    assert ", ".join(protocol.metrics) == metrics or least is None
    least = least or max(1, 11 if any("ssim" in name for name in protocol.metrics) else 1)
    if min(size) < least:
        write_image(tmp_path / "small.png", picture(*size))
        found = refusal(attempts, find_test_set, str(tmp_path), tmp_path, task)
        assert found == (
            f"{tmp_path / 'small.png'}: {size[1]}x{size[0]} pixels, expected at least {least}x{least} to measure "
            f"{', '.join(protocol.metrics)} with a border of {protocol.border}: remove the image from the test set"
        )
        (tmp_path / "small.png").unlink()
    write_image(tmp_path / "smallest.png", picture(least, 40))
    test_set = find_test_set(str(tmp_path), tmp_path, task)
    restored = evaluate(lambda lq: np.zeros((lq.shape[0] * task.scale, lq.shape[1] * task.scale, task.channels), np.uint8), test_set)  # type: ignore[arg-type]
    assert np.isfinite(list(restored.metrics.values())).all()
    attempts.handled("data sets")


def test_a_degraded_file_that_is_too_small_is_named(tmp_path, attempts):
    filled(tmp_path / "Set5" / "HR", "a.png", size=(14, 48))
    filled(tmp_path / "Set5" / "LR_bicubic" / "X2", "a.png", size=(7, 24))
    task = replace(super_resolution(), protocol=replace(super_resolution().protocol, metrics=("psnr_y", "ssim_y")))
    found = refusal(attempts, find_test_set, "Set5", tmp_path, task)
    assert found.startswith(
        f"{tmp_path / 'Set5' / 'LR_bicubic' / 'X2' / 'a.png'}: 24x7 pixels, expected at least 8x8 to measure psnr_y, ssim_y "
    )
