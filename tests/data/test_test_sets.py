"""Test sets in the trees in which people have them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import picture

from irformer.config.compose import compose, instantiate
from irformer.config.image_sets import find_test_sets
from irformer.data.test_sets import available_test_sets, find_test_set
from irformer.errors import UserError
from irformer.imaging.gray import to_gray
from irformer.imaging.images import write_image
from irformer.imaging.resize import imresize
from irformer.tasks.degradations import Downscale
from irformer.tasks.task import EvaluationProtocol, Task

PROTOCOL = EvaluationProtocol(lr="matlab_uint8", border=2, padding="flip_always", metrics=("psnr_y",))


def task_of(name: str, *overrides: str) -> Task:
    return instantiate(compose("benchmark", [f"task={name}", *overrides, "checkpoint=degraded"]).task)


TASK = Task("sr_x2", 2, 3, Downscale(2), PROTOCOL, ("Set5", "B100"))


@pytest.mark.parametrize(
    ("hq", "lq"),
    [
        ("Set5/HR", "Set5/LR_bicubic/X2"),
        ("Set5/GTmod12", "Set5/LRbicx2"),
        ("Set5/GTmod2", "Set5/LRbicx2"),
        ("Set5/original", "Set5/LR_bicubic/X2"),
        ("Set5", "Set5/LRbicx2"),
        ("benchmark/Set5/HR", "benchmark/Set5/LR_bicubic/X2"),
        ("benchmark/Set5/GTmod12", "benchmark/Set5/LRbicx2"),
    ],
)
def test_trees(tmp_path, hq, lq):
    (tmp_path / hq).mkdir(parents=True)
    (tmp_path / lq).mkdir(parents=True)
    write_image(tmp_path / hq / "baby.png", picture(25, 30))
    write_image(tmp_path / lq / ("babyx2.png" if "X2" in lq else "baby.png"), picture(12, 15, seed=1))
    found = find_test_set("Set5", tmp_path, TASK)
    assert found.lq_source == "files"
    assert (found[0].lq == picture(12, 15, seed=1)).all()
    assert (found[0].hq == picture(25, 30)[:24]).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_kinds_of_files(tmp_path, suffix):
    (tmp_path / "Manga109" / "HR").mkdir(parents=True)
    write_image(tmp_path / "Manga109" / "HR" / f"a b.{suffix}", picture(20, 30))
    found = find_test_set("manga109", tmp_path, TASK)
    assert (found.name, found[0].name, found[0].lq.shape) == ("Manga109", "a b", (10, 15, 3))


@pytest.mark.parametrize("top", ["DIV2K", "."])
def test_div2k_val_is_found_in_its_own_tree(tmp_path, top):
    for folder, name, size in [("DIV2K_valid_HR", "0801", (24, 32)), ("DIV2K_valid_LR_bicubic/X2", "0801x2", (12, 16))]:
        (tmp_path / top / folder).mkdir(parents=True)
        write_image(tmp_path / top / folder / f"{name}.png", picture(*size))
    found = find_test_set("DIV2K_val", tmp_path, TASK)
    assert (found.name, found.lq_source, found[0].name) == ("DIV2K_val", "files", "0801")


def test_lq_files_are_taken_where_they_are_of_the_task_s_variant(tmp_path):
    """The files that go around are of the double variant at x8, of the uint8 variant below."""
    for folder, size in [("HR", (64, 64)), ("LR_bicubic/X2", (32, 32)), ("LR_bicubic/X8", (8, 8))]:
        (tmp_path / "Set5" / folder).mkdir(parents=True)
        write_image(tmp_path / "Set5" / folder / "a.png", picture(*size))
    for scale, variant, source in [
        (2, "matlab_uint8", "files"),
        (2, "matlab_double", "made on the fly"),
        (8, "matlab_double", "files"),
        (8, "matlab_uint8", "made on the fly"),
    ]:
        task = Task("sr", scale, 3, Downscale(scale), replace(PROTOCOL, lr=variant), ())
        assert find_test_set("Set5", tmp_path, task).lq_source == source


@pytest.mark.parametrize("tree", ["Rain100L", "test/Rain100L", "elsewhere"])
def test_rain_is_found_as_pairs(tmp_path, tree):
    task = task_of("derain")
    for i, folder in enumerate(("target", "input")):
        (tmp_path / tree / folder).mkdir(parents=True)
        write_image(tmp_path / tree / folder / "1.png", picture(20, 24, seed=i))
    found = find_test_set("Rain100L" if tree != "elsewhere" else str(tmp_path / tree), tmp_path, task)
    assert (found.lq_source, len(found)) == ("files", 1)
    assert np.array_equal(found[0].hq, picture(20, 24, seed=0))
    assert np.array_equal(found[0].lq, picture(20, 24, seed=1))
    (tmp_path / tree / "input" / "1.png").rename(tmp_path / tree / "1.png")
    (tmp_path / tree / "input").rmdir()
    with pytest.raises(UserError, match=r"1\.png has no degraded counterpart, and derain cannot generate one: expected the folders input"):
        find_test_set(str(tmp_path / tree), tmp_path, task)


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ([(500, 500)], "Kodak24 (500x500)"),
        ([(512, 768), (768, 512)], "Kodak24 (768x512)"),
        ([(500, 500), (512, 768)], "Kodak24 (of other sizes)"),
    ],
)
def test_kodak24_names_its_variant(tmp_path, sizes, name):
    (tmp_path / "Kodak").mkdir()
    for i, size in enumerate(sizes):
        write_image(tmp_path / "Kodak" / f"{i}.png", np.zeros((*size, 3), np.uint8))
    assert find_test_set("Kodak24", tmp_path, task_of("denoise_color_15")).name == name


def test_bsd68_is_gray_or_in_colour_as_the_task_is(tmp_path):
    gray, colour = task_of("denoise_gray_15"), task_of("denoise_color_15")
    (tmp_path / "BSD68").mkdir()
    write_image(tmp_path / "BSD68" / "1.png", picture(20, 30, 1))
    assert [s.name for s in available_test_sets(gray.test_sets, tmp_path, gray)] == ["BSD68"]
    assert available_test_sets(colour.test_sets, tmp_path, colour) == []  # gray files are not the set in colour
    (tmp_path / "CBSD68").mkdir()
    write_image(tmp_path / "CBSD68" / "1.png", picture(20, 30))
    for name in ("BSD68", "CBSD68"):
        assert find_test_set(name, tmp_path, colour).name == "CBSD68"
        found = find_test_set(name, tmp_path, gray)
        assert (found.name, found.remarks) == ("BSD68", [])
    (tmp_path / "BSD68" / "1.png").unlink()
    (tmp_path / "BSD68").rmdir()
    assert find_test_set("BSD68", tmp_path, gray).remarks == ["BSD68: 1 color files converted to gray by OpenCV's reader (0-255)."]


def test_gray_of_a_test_image_is_made_by_the_protocol_s_rule(tmp_path):
    (tmp_path / "LIVE1").mkdir()
    write_image(tmp_path / "LIVE1" / "colour.png", picture(32, 40))
    write_image(tmp_path / "LIVE1" / "gray.png", picture(32, 40, 1))
    swinir = find_test_set("LIVE1", tmp_path, task_of("jpeg_gray_10"))
    kair = find_test_set("LIVE1", tmp_path, task_of("jpeg_gray_10", "protocol=kair"))
    assert np.array_equal(swinir[0].hq, to_gray(picture(32, 40), "matlab"))
    assert np.array_equal(kair[0].hq[..., 0], cv2.imread(str(tmp_path / "LIVE1" / "colour.png"), 0))
    for found in (swinir, kair):  # a gray file is gray already
        assert np.array_equal(found[1].hq, picture(32, 40, 1))
    assert swinir.remarks == ["LIVE1: 1 color files converted to gray by MATLAB's Y (rounded, 16-235)."]
    assert kair.remarks == ["LIVE1: 1 color files converted to gray by OpenCV's reader (0-255)."]


def test_without_test_sets_the_sample_photos_stand_in_but_for_rain(tmp_path):
    assert [s.name for s in find_test_sets(None, tmp_path, task_of("jpeg_gray_10"))] == ["sample"]
    with pytest.raises(UserError, match=r"none of the test sets of derain \(Rain100L, .*\) was found in .*data\.val=FOLDER"):
        find_test_sets(None, tmp_path, task_of("derain"))


def test_lq_is_made_where_there_are_no_files(tmp_path):
    (tmp_path / "BSD100").mkdir()
    write_image(tmp_path / "BSD100" / "1.png", picture(25, 30))
    found = find_test_set("B100", tmp_path, TASK)
    assert (found.name, found.lq_source) == ("B100", "made on the fly")
    assert (found[0].lq == imresize(np.ascontiguousarray(picture(25, 30)[:24]), 12, 15)).all()
    assert [s.name for s in available_test_sets(TASK.test_sets, tmp_path, TASK)] == ["B100"]


def test_files_that_do_not_fit_are_named(tmp_path):
    for folder, size in [("HR", (40, 60)), ("LR_bicubic/X2", (10, 15))]:
        (tmp_path / "Set5" / folder).mkdir(parents=True)
        write_image(tmp_path / "Set5" / folder / "baby.png", picture(*size))
    with pytest.raises(UserError, match=r"baby\.png is 60x40 and .*baby\.png 15x10: the sizes do not match at scale 2"):
        find_test_set("Set5", tmp_path, TASK)[0]


def test_unknown_and_absent_sets_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="unknown test set Set6; known: Set5"):
        find_test_set("Set6", tmp_path, TASK)
    with pytest.raises(UserError, match=r"Urban100 was not found below .*paths\.data=FOLDER or the variable IRFORMER_DATA"):
        find_test_set("Urban100", tmp_path, TASK)


def test_a_folder_is_a_test_set_too(tmp_path):
    write_image(tmp_path / "own.png", picture(20, 20))
    assert find_test_set(str(tmp_path), tmp_path, TASK)[0].name == "own"
