"""What speed.py compares is the same work, and its lines say what came out."""

import sys

import pytest
import torch

from irformer.commands.speed import speed
from irformer.config.compose import compose, instantiate
from irformer.data.samples import TrainingSamples
from irformer.data.stages import Stages
from irformer.speed import pipeline as speed_data


@pytest.fixture
def small(monkeypatch):
    """Two images, just larger than a sub-image."""
    for name, value in {"HEIGHT": 482, "WIDTH": 720, "IMAGES": 2}.items():
        monkeypatch.setattr(speed_data, name, value)


def test_store_and_files_are_asked_for_the_same_patches(small, tmp_path):
    made = speed_data.SyntheticSet(tmp_path)
    task = instantiate(compose("train", ["task=sr_x2"]).task)
    packed, files = (TrainingSamples(images, task, Stages.constant(64, 1), seed=0) for images in (made.packed(2, lq=True), made.files()))
    for index in range(8):
        a, b = packed[index], files[index]
        assert all(torch.equal(a[name], b[name]) for name in ("lq", "hq"))
        assert a["hq"].shape == (3, 128, 128)
    sub_images = made.files("_sub")
    assert {sub_images.size(i) for i in range(len(sub_images))} == {(480, 480)}
    assert len(sub_images) == 4
    assert sub_images.has_lq


def test_the_table_and_the_wanted_numbers(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "data", "--seconds", "0.01"])
    speed()
    shown = capsys.readouterr().out
    assert shown.count("packed store") >= 2
    assert "sub-image PNG files" in shown
    assert "pairs per second from the store: " in shown
    assert "speedup over whole files: " in shown


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_looked_at_in_all_processes(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "data-memory", "--batches", "20", "--workers", "2"])
    speed()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" batches")[0].split()[-1] for line in lines if "MiB in 3 processes" in line] == [str(n) for n in range(2, 21, 2)]
    assert lines[-1].startswith("from the first tenth to the last: ")
