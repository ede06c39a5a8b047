"""task=pairs: real degraded and clean images, from training to the results; and what is refused before training."""

import json

import numpy as np
import pytest
import torch
from conftest import picture
from rich.console import Console
from tiny import TINY

from irformer.config.compose import compose
from irformer.data.pairs import scale_of_folder
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.imaging.resize import imresize
from irformer.training.build import build_run
from irformer.training.run import Run

FOLDER = [word for word in TINY if word != "data=sample"] + ["data=folder", "trainer.max_steps=2"]


def write_pairs(folder, *sizes, scale: int = 1, halves=("input", "target"), seed: int = 0) -> None:
    """Pairs that no degradation of irformer makes: darker, and smaller by the scale."""
    for name in halves:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (height, width) in enumerate(sizes):
        clean = picture(height, width, seed=seed + i)
        small = imresize(clean, height // scale, width // scale) if scale > 1 else clean
        write_image(folder / halves[0] / f"{i}.png", small // 2)
        write_image(folder / halves[1] / f"{i}.png", clean)


@pytest.fixture
def root(tmp_path):
    for scale in (1, 2):
        write_pairs(tmp_path / f"x{scale}" / "train", (64, 81), (65, 70), scale=scale, seed=1)
        write_pairs(tmp_path / f"x{scale}" / "val", (41, 50), scale=scale, seed=11)
        write_pairs(tmp_path / f"x{scale}" / "test", (42, 51), scale=scale, seed=21)
    return tmp_path


def build(root, scale: int, *overrides: str, task: str = "task=pairs") -> Run:
    data = root / f"x{scale}"
    words = [task, f"data.path={data / 'train'}", f"data.val={data / 'val'}", f"test_sets=[{data / 'test'}]"]
    return build_run(compose("train", [*FOLDER, *words, *overrides]), root / "run")


@pytest.mark.parametrize("scale", [1, 2])
def test_pairs_are_trained_validated_and_measured_on_files_alone(root, scale):
    run = build(root, scale)
    assert (run.task.label, run.task.scale, run.task.protocol.border) == (f"pairs_x{scale}", scale, 0 if scale == 1 else 2)
    assert run.module.network.scale == scale
    assert "LQ from files" in run.summary["data"]
    assert {test_set.lq_source for test_set in (*run.test_sets, run.data.validation)} == {"files"}
    sample = run.data.samples[0]
    assert sample["hq"].shape[-1] == scale * sample["lq"].shape[-1]
    assert sample["lq"].max() <= 127
    record = run.execute(Console(quiet=True))
    assert record["protocol"]["metrics"] == ["psnr_rgb", "ssim_rgb"]
    assert record["test_sets"]["test"]["lq"] == "files"
    # A resumed run finds the scale again, and ends with the bits of a run that was not stopped.
    build(root, scale, "trainer.max_steps=4", f"resume={root / 'run'}").execute(Console(quiet=True))
    resumed = torch.load(root / "run" / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]
    (root / "run").rename(root / "resumed")
    build(root, scale, "trainer.max_steps=4").execute(Console(quiet=True))
    whole = torch.load(root / "run" / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert json.loads((root / "run" / "results.json").read_text())["task"] == f"pairs_x{scale}"


def test_the_protocol_of_pairs_can_be_changed(root):
    run = build(root, 1, "task.protocol.metrics=[psnr_y]", "task.protocol.border=3")
    assert run.task.label == "pairs_x1, metrics ['psnr_y'], border 3"
    assert run.task.protocol.as_dict() == {"border": 3, "padding": "network", "metrics": ["psnr_y"]}


def test_clean_and_degraded_folders_may_be_named_apart(root):
    train = root / "x2" / "train"
    run = build(root, 2, f"data.path={train / 'target'}", f"data.lq_path={train / 'input'}")
    assert run.task.name == "pairs_x2"
    assert "LQ from files" in run.summary["data"]


@pytest.mark.parametrize("halves", [("input", "target"), ("noisy", "clean"), ("lq", "gt"), ("LR_bicubic/X3", "HR")])
def test_layouts_and_scales(tmp_path, halves):
    write_pairs(tmp_path, (61, 50), (30, 33), scale=3, halves=halves)
    assert scale_of_folder(tmp_path) == 3


def _write(file, height, width):
    write_image(file, np.zeros((height, width, 3), np.uint8))


def test_scales_that_the_files_do_not_tell(tmp_path):
    for name, clean, degraded, line in (
        ("two", (7, 7), (2, 2), None),
        ("no", (60, 60), (40, 40), r"60x60 and .* 40x40: expected a clean image 1, 2, 3, \.\.\. times as large"),
        ("both", (11, 11), (2, 2), r"11x11 and .* 2x2, which matches the scales 4, 5; set task\.scale=N"),
    ):
        folder = tmp_path / name
        for half, size in (("target", clean), ("input", degraded)):
            (folder / half).mkdir(parents=True)
            _write(folder / half / "a.png", *size)
        if line is None:
            assert scale_of_folder(folder) == 3
        else:
            with pytest.raises(UserError, match=line):
                scale_of_folder(folder)
    for scale in (2, 4):
        (tmp_path / "many" / "LR_bicubic" / f"X{scale}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"many: has degraded images for the scales 2, 4; set task\.scale=N"):
        scale_of_folder(tmp_path / "many")


def test_pairs_that_do_not_fit_are_named_before_training(root):
    _write(root / "x2" / "train" / "input" / "1.png", 20, 20)
    with pytest.raises(UserError, match=r"1 of 2 pairs do not match: .* 2 times .*: 1\.png 70x65 with 1\.png 20x20"):
        build(root, 2)
    (root / "x2" / "train" / "input" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images in .*target have no degraded counterpart in .*input .*, the first: 1"):
        build(root, 2)
    (root / "x2" / "train" / "input" / "0.png").unlink()
    _write(root / "x2" / "train" / "input" / "other.png", 32, 40)
    with pytest.raises(UserError, match=r"target/0\.png has no degraded counterpart in .*input \(named 0 or 0xSCALE\): add it, or"):
        build(root, 2)
    with pytest.raises(UserError, match=r"val/target/0\.png is 50x41 and .*val/input/0\.png 50x41: the sizes do not match at scale 2"):
        build(root, 1, f"data.path={root / 'x2' / 'test'}")


@pytest.mark.parametrize("task", ["task=denoise_color_25", "task=jpeg_gray_10"])
def test_pairs_under_a_task_that_degrades_are_refused(root, task):
    train = root / "x1" / "train"
    name = task.partition("=")[2]
    with pytest.raises(
        UserError, match=rf"data\.lq_path={train / 'input'}: the task {name} degrades .*; train and measure on pairs with task=pairs"
    ):
        build(root, 1, f"data.path={train / 'target'}", f"data.lq_path={train / 'input'}", task=task)
    with pytest.raises(
        UserError, match=rf"data\.path={train} contains pairs, but the task {name} .* with task=pairs, .* data\.path={train / 'target'}"
    ):
        build(root, 1, task=task)


def test_pairs_for_training_alone_are_named_in_super_resolution(root):
    train = root / "x2" / "train"
    words = [f"data.path={train / 'target'}", f"data.lq_path={train / 'input'}", f"data.val={root / 'x2' / 'val' / 'target'}"]
    run = build(root, 2, *words, f"test_sets=[{root / 'x2' / 'test' / 'target'}]", task="task=sr_x2")
    assert run.summary["LQ"] == f"trained on the files in {train / 'input'}; those of target are generated on the fly by the task's rule"


def test_pairs_need_test_sets_of_pairs(root):
    with pytest.raises(
        UserError, match=r"pairs_x1 is measured on your own pairs, in the folders input and target: specify a folder .* data\.val"
    ):
        build(root, 1, "test_sets=null")
    with pytest.raises(
        UserError, match=r"target/0\.png has no degraded counterpart, and pairs_x1 cannot generate one: expected the folders input"
    ):
        build(root, 1, f"test_sets=[{root / 'x1' / 'test' / 'target'}]")
