"""Test sets in the trees in which people have them."""

import numpy as np
import pytest
from conftest import picture

from irformer.data.images import write_image
from irformer.data.test_sets import available_test_sets, find_test_set
from irformer.degradations import Downscale
from irformer.errors import UserError
from irformer.resize import imresize
from irformer.tasks import Protocol, Task

PROTOCOL = Protocol(lr="matlab_uint8", border=2, padding="flip_always", metrics=("psnr_y",))
TASK = Task("sr_x2", 2, 3, Downscale(2), PROTOCOL, ("Set5", "B100"))


@pytest.mark.parametrize(
    ("hq", "lq"),
    [("Set5/HR", "Set5/LR_bicubic/X2"), ("Set5/GTmod12", "Set5/LRbicx2"), ("benchmark/Set5/HR", "benchmark/Set5/LR_bicubic/X2")],
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
    with pytest.raises(UserError, match=r"baby\.png is 60x40 and .*baby\.png 15x10: they do not fit at scale 2"):
        find_test_set("Set5", tmp_path, TASK)[0]


def test_unknown_and_absent_sets_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="unknown test set Set6; known: Set5"):
        find_test_set("Set6", tmp_path, TASK)
    with pytest.raises(UserError, match=r"Urban100 was not found below .*paths\.data=FOLDER or the variable IRFORMER_DATA"):
        find_test_set("Urban100", tmp_path, TASK)


def test_a_folder_is_a_test_set_too(tmp_path):
    write_image(tmp_path / "own.png", picture(20, 20))
    assert find_test_set(str(tmp_path), tmp_path, TASK)[0].name == "own"
