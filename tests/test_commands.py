"""The commands as users run them: the files they write, and one-line reports of user errors."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture

from irformer.commands.benchmark import benchmark
from irformer.commands.protocols import protocols
from irformer.commands.reproduce import reproduce
from irformer.commands.train import train
from irformer.imaging.images import read_image, write_image

REPOSITORY = Path(__file__).parent.parent
TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu", "logger=csv"]


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command of the repository as a process in a folder."""
    command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300)


@pytest.fixture
def error_line(tmp_path, monkeypatch, capsys):
    """Run train.py in this process; returns the only line on stderr."""

    def type_words(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        with pytest.raises(SystemExit) as exit_:
            train()
        captured = capsys.readouterr()
        assert exit_.value.code == 1
        assert "step" not in captured.out  # nothing has been trained
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert not list((tmp_path / "runs").glob("*")), "a failed start must leave no folder"
        return lines[0]

    return type_words


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["norm=ilm"], "error: norm=ilm: unknown norm; known: batch, batch_eval, dyt, iln"),
        (["norm=ilm"], "did you mean iln?"),
        (["model=swinr"], "error: model=swinr: unknown model; known: drct, "),
        (["task=sr_x5"], "error: task=sr_x5: unknown task; known: denoise_color, denoise_color_15, "),
        (["task=sr_x5"], "sr_x2, sr_x3, sr_x4, sr_x8; did you mean sr_x"),
        (["-m", "norm=ln,ilm", "hydra.sweep.dir=sweep"], "error: norm=ilm: unknown norm"),
        (["task=denoise_color"], "error: task.sigma is required: give task.sigma=VALUE"),
        (["task=denoise_color", "task.sigma=[0,55]"], "error: task.sigma=[0, 55]: expected a number from 0 to 255, or null"),
        (["task=jpeg_gray", "task.quality=101"], "error: task.quality=101: expected a whole number from 1 to 100, or null"),
        (["task=pairs"], "error: task.scale is unknown because no pairs are given: train on data=folder data.path=FOLDER"),
        (["optim.lrr=1"], "error: unknown key optim.lrr; did you mean optim.lr?"),
        (["nrom=iln"], "error: unknown key nrom; did you mean norm?"),
        (["data=folder"], "error: data=folder needs a folder of clean images: add data.path=FOLDER"),
        (["data=folder", "data.path=nowhere"], "error: no folder nowhere: set data.path=FOLDER to the folder of clean images"),
        (["data=div2k", "paths.data=nowhere"], "error: DIV2K was not found below nowhere"),
        (["data=div2k", "paths.data=nowhere"], "the variable IRFORMER_DATA"),
        (["test_sets=[Set6]"], "error: unknown test set Set6; known: Set5"),
        (["trainer.max_steps=0"], "error: trainer.max_steps=0: expected a whole number from 1 to 1,000,000,000"),
        (["norm.ends=foo"], "error: norm.ends=foo: expected same, ln, affine or none"),
        (["model.depths=[2,2]"], "depths has 2 groups and num_heads 1"),
        (["model.embed_dim=9"], "2 heads do not divide 9 channels"),
        (["resume=runs/nope"], "error: resume=runs/nope: no "),
        (["init_from=nope"], "error: init_from=nope: no such file"),
    ],
    ids=str,
)
def test_a_user_error_gets_one_line(error_line, words, line):
    fixed_by_the_run = ("model", "debug") if words[0].startswith("resume") else ()
    tiny = [word for word in TINY if not word.startswith(fixed_by_the_run)]
    assert line in error_line(*sorted([*tiny, *words], key=lambda word: not word.startswith("-")))  # options come first


def test_bad_images_are_named_before_training(error_line, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    assert f"error: no images (.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp) in {folder}" in error_line(
        *TINY, "data=folder", f"data.path={folder}"
    )
    write_image(folder / "a.png", picture(20, 40))
    line = error_line(*TINY, "data=folder", f"data.path={folder}", "patch_size=16")
    assert "a.png: 40x20 pixels, smaller than the training patch of 32x32 (1 such images)" in line
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:100])
    assert "a.png: truncated" in error_line(*TINY, "data=folder", f"data.path={folder}")


def short_commands_of_the_readme() -> list[str]:
    """The commands that need no data set, in order."""
    lines = [line.strip() for line in (REPOSITORY / "README.md").read_text().splitlines() if line.startswith("    python ")]
    return [line for line in lines if "debug=fast" in line or "runs/first" in line or "photo.jpg" in line]


def run_line(line: str, folder: Path) -> None:
    done = run(*shlex.split(line)[1:], folder=folder, IRFORMER_DATA=str(folder))
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_short_commands_of_the_readme_run(tmp_path):
    """In a folder that contains only a photo. The sweep has a slow test of its own."""
    write_image(tmp_path / "photo.jpg", picture(24, 36))
    *lines, sweep = short_commands_of_the_readme()
    assert len(lines) == 3
    assert " -m " in sweep
    for line in lines:
        run_line(line, tmp_path)
    assert read_image(tmp_path / "restored.png").shape == (48, 72, 3)


@pytest.mark.slow
def test_the_sweep_of_the_readme_runs(tmp_path):
    run_line(short_commands_of_the_readme()[-1], tmp_path)
    assert len(list((tmp_path / "runs").glob("*/*/results.json"))) == 2


@pytest.mark.slow
def test_a_run_from_training_to_resuming(tmp_path):
    """Outside the repository: train, start again in the same folder, benchmark, restore, resume."""
    done = run("train.py", "norm=iln", *TINY, "name=first", folder=tmp_path, IRFORMER_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for word in (
        "sr_x2",
        "all 2 images of sample (data.val_images=all)",
        "parameters",
        "ends affine, standardized input",
        "precision 32-true",
        "runs/first",
        "no DIV2K",
    ):
        assert word in done.stdout
    assert "bicubic" in done.stdout
    assert "33.48 / 0.9307" in done.stdout

    again = run("train.py", "norm=iln", *TINY, "name=first", folder=tmp_path)
    assert again.returncode == 1
    assert "runs/first already contains a run" in again.stderr

    benchmark = run("scripts/benchmark.py", "checkpoint=runs/first", "test_sets=[sample]", "device=cpu", folder=tmp_path)
    assert benchmark.returncode == 0, benchmark.stderr
    (folder,) = (tmp_path / "runs" / "benchmark").glob("*")
    assert folder.name.startswith("first-sr_x2-")
    here, there = (json.loads((place / "results.json").read_text()) for place in (tmp_path / "runs" / "first", folder))
    assert here["test_sets"]["sample"]["metrics"] == there["test_sets"]["sample"]["metrics"]

    other = run("scripts/benchmark.py", "checkpoint=runs/first", "task=sr_x4", "test_sets=[sample]", folder=tmp_path)
    assert other.returncode == 1
    assert "was trained for sr_x2 (scale 2, 3 channels), and task=sr_x4 needs scale 4" in other.stderr

    write_image(tmp_path / "photo.png", picture(23, 35))
    restored = run("scripts/restore.py", "photo.png", "restored.png", "--checkpoint", "runs/first", folder=tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert read_image(tmp_path / "restored.png").shape == (46, 70, 3)

    resumed = run("train.py", "resume=runs/first", "trainer.max_steps=3", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "from step 2" in resumed.stdout
    assert json.loads((tmp_path / "runs" / "first" / "results.json").read_text())["step"] in (1, 2, 3)
    refused = run("train.py", "resume=runs/first", "norm=ln", folder=tmp_path)
    assert "norm=ln together with resume: a resumed run keeps its norm" in refused.stderr


def test_a_sweep_leaves_its_runs_and_one_table(tmp_path):
    done = run("train.py", "-m", "norm=ln,iln", *TINY, "hydra.sweep.dir=sweep", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/results.json"))
    assert runs == ["sr_x2-swinir_tiny-iln-s0", "sr_x2-swinir_tiny-ln-s0"]
    table = (tmp_path / "sweep" / "table.md").read_text()
    assert all(name in table and name in done.stdout for name in runs)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("budget=tpu", "error: budget=tpu: expected cpu, gpu, paper"),
        ("figure3", "error: figure3: unknown; known: control"),
        ("optim.lrr=1", "error: unknown key optim.lrr; did you mean optim.lr?"),
    ],
)
def test_a_user_error_in_a_reproduction_gets_one_line(monkeypatch, capsys, tmp_path, word, line):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "control", f"out={tmp_path}", word])
    with pytest.raises(SystemExit) as exit_:
        reproduce()
    assert exit_.value.code == 1
    assert line in capsys.readouterr().err


@pytest.fixture
def measure(tmp_path, monkeypatch, capsys):
    """Run scripts/benchmark.py in this process; returns the record, or the line that reports a user error."""

    def type_words(*words: str) -> dict | str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "out=out", "device=cpu"])
        try:
            benchmark()
        except SystemExit:
            return capsys.readouterr().err
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return type_words


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        (["task=jpeg_gray_10"], {"gray": "matlab", "quality": 10}),
        (["task=jpeg_gray_10", "protocol=kair"], {"gray": "opencv", "quality": 10}),
        (["task=denoise_color_25", "protocol=restormer"], {"noise": "rgb", "sigma": 25}),
        (["task=denoise_color_blind", "task.protocol.sigma=50"], {"noise": "bgr", "sigma": 50}),
    ],
    ids=str,
)
def test_the_degraded_input_is_measured_under_the_protocol(measure, tmp_path, words, rules):
    (tmp_path / "own").mkdir()
    write_image(tmp_path / "own" / "a.png", picture(40, 48))
    record = measure("checkpoint=degraded", "test_sets=[own]", *words)
    plain = {"border", "padding", "metrics"}
    assert {name: value for name, value in record["protocol"].items() if name not in plain} == rules
    assert record["protocol"]["padding"] == "none"
    (per_image,) = record["test_sets"]["own"]["per_image"].values()
    assert list(per_image) == record["protocol"]["metrics"]


def test_what_cannot_be_measured_without_a_network_is_reported(measure):
    assert "checkpoint=degraded: the input of sr_x2 is smaller than its output; checkpoint=bicubic upscales it" in measure(
        "checkpoint=degraded", "task=sr_x2", "test_sets=[sample]"
    )
    assert "checkpoint=bicubic upscales images, but jpeg_gray_10 keeps their size; checkpoint=degraded evaluates its input" in measure(
        "checkpoint=bicubic", "task=jpeg_gray_10", "test_sets=[sample]"
    )
    assert "protocol=swinnir: unknown protocol; known: hat, iln, kair, restormer, swinir; did you mean swinir?" in measure(
        "checkpoint=degraded", "protocol=swinnir"
    )


def test_the_table_of_protocols_goes_between_its_lines(monkeypatch, capsys, tmp_path):
    (tmp_path / "Set12").mkdir()
    write_image(tmp_path / "Set12" / "01.png", picture(32, 40, 1))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    monkeypatch.setenv("IRFORMER_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["protocols.py", str(page), "--tasks", "denoise_gray_25"])
    protocols()
    assert "Set12" in capsys.readouterr().out
    assert "old" in page.read_text()  # with --tasks, the table is only printed
    monkeypatch.setattr(sys, "argv", ["protocols.py", str(page)])
    monkeypatch.setattr("irformer.commands.protocols.complete_tasks", lambda: ["denoise_gray_25", "sr_x2"])
    protocols()
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    (row,) = (line for line in lines if line.startswith("| denoise_gray_25 |"))
    assert row.startswith("| denoise_gray_25 | opencv, 25 | degraded | Set12 | 1 | made | psnr / ssim | 20.")
    page.write_text("no table here")
    with pytest.raises(SystemExit):
        protocols()
    assert "error: " + str(page) + ": expected a page with the lines <!-- table -->" in capsys.readouterr().err


def test_bicubic_benchmark_of_a_folder(tmp_path):
    (tmp_path / "own").mkdir()
    write_image(tmp_path / "own" / "flat.png", np.full((40, 40, 3), 90, np.uint8))
    done = run("scripts/benchmark.py", "checkpoint=bicubic", "test_sets=[own]", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "runs" / "benchmark").glob("bicubic-sr_x2-*/results.json")
    record = json.loads(file.read_text())
    assert (record["task"], record["protocol"]["lr"], record["protocol"]["border"]) == ("sr_x2", "matlab_uint8", 2)
    assert record["test_sets"]["own"]["per_image"]["flat"]["psnr_y"] == "Infinity"  # strict JSON has no infinity
