"""scripts/benchmark.py: results are merged or kept separate, never lost; the task comes from the checkpoint; labels name the protocol."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf

from irformer.commands.benchmark import benchmark
from irformer.config.compose import build_network, compose
from irformer.config.tasks import build_task, changed_keys
from irformer.errors import UserError
from irformer.evaluation.evaluate import published_rows
from irformer.evaluation.results import read_records, read_results
from irformer.imaging.images import write_image
from irformer.weights.checkpoints import save_network

TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]"]


def save(path: Path, *words: str, seed: int = 0, recorded: bool = True, named: bool = True) -> Path:
    """Save an untrained network for the task given by overrides to a weights file."""
    cfg = compose("train", [*TINY, "name=x", *words])
    torch.manual_seed(seed)
    network = build_network(cfg.model)
    model, task = (OmegaConf.to_container(node, resolve=True) for node in (cfg.model, cfg.task))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(path, network, model, cfg.task.name if named else None, 10, {}, task if recorded else None)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Change to a temporary folder with two small test sets."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / f"{name}.png", picture(32, 40, seed=seed))
    return tmp_path


@pytest.fixture
def measure(place, monkeypatch, capsys):
    """Run scripts/benchmark.py in this process; returns the output, or the line that reports a user error."""

    def type_words(*words: str, sets: str = "one") -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, f"test_sets=[{sets}]", "device=cpu"])
        capsys.readouterr()
        try:
            benchmark()
        except SystemExit:
            lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("measured ")]
            assert len(lines) == 1, lines
            return lines[0]
        return capsys.readouterr().out

    return type_words


def files(place: Path, below: str = "runs") -> list[Path]:
    return sorted((place / below).rglob("results.json"))


def strictly(file: Path) -> dict:
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(file.read_text(), parse_constant=refuse)


def without_costs(record: dict) -> dict:
    """The test sets of a record without times and memory, which differ each time."""
    return {name: {key: value for key, value in part.items() if key != "costs"} for name, part in record["test_sets"].items()}


def test_results_of_further_sets_are_kept_beside_each_other(measure, place, attempts):
    measure("checkpoint=bicubic")
    (file,) = files(place)
    first = strictly(file)
    measure("checkpoint=bicubic", sets="two")
    assert files(place) == [file]
    assert strictly(file)["test_sets"]["one"] == first["test_sets"]["one"]
    assert list(strictly(file)["test_sets"]) == ["one", "two"]
    write_image(place / "one" / "more.png", picture(32, 32))
    measure("checkpoint=bicubic")
    assert list(strictly(file)["test_sets"]["one"]["per_image"]) == ["more", "one"]
    assert list(strictly(file)["test_sets"]) == ["one", "two"]
    attempts.handled("benchmark")


def test_two_runs_of_one_name_do_not_share_a_folder(measure, place, attempts):
    for i in (0, 1):
        save(place / f"run{i}" / "checkpoints" / "best.safetensors", seed=i)
    measure("checkpoint=run0/checkpoints/best.safetensors")
    measure("checkpoint=run1/checkpoints/best.safetensors")
    both = files(place)
    assert len(both) == 2
    assert all(file.parent.name.startswith("best-sr_x2-") for file in both)
    numbers = [strictly(file)["test_sets"]["one"]["metrics"] for file in both]
    assert numbers[0] != numbers[1]
    (place / "run0").rename(place / "moved")
    measure("checkpoint=moved/checkpoints/best.safetensors", sets="two")
    assert files(place) == both, "the same weights in another place"
    attempts.handled("benchmark")


@pytest.mark.parametrize("words", [["task.protocol.border=0"], ["task.protocol.lr=matlab_double"], ["+model.pixel_range=255"]], ids=str)
def test_other_numbers_go_to_another_folder(measure, place, attempts, words):
    save(place / "a.safetensors")
    measure("checkpoint=a.safetensors")
    measure("checkpoint=a.safetensors", *words)
    assert len(files(place)) == 2
    attempts.handled("benchmark")


def test_nothing_but_the_results_is_left(measure, place):
    measure("checkpoint=bicubic")
    (file,) = files(place)
    names = ["per_image.csv", "report.html", "results.json", "table.csv", "table.md", "table.tex"]
    found = {path for path in (place / "runs").rglob("*") if not {".lock", ".page"} & set(path.parts)}
    assert found == {file.parent.parent, file.parent, *(file.parent / name for name in names)}


@pytest.mark.parametrize("word", ["out", "hydra.run.dir"])
def test_out_and_hydra_s_key_mean_the_same(measure, place, attempts, word):
    measure("checkpoint=bicubic", f"{word}=here")
    assert files(place, "here") == [place / "here" / "results.json"]
    assert not (place / "runs").exists()
    attempts.handled("benchmark")


def test_out_and_hydra_s_key_together_are_refused(measure, attempts):
    line = "error: out=here and hydra.run.dir=there both set the folder of results.json; give only one of them"
    assert measure("checkpoint=bicubic", "out=here", "hydra.run.dir=there") == line
    attempts.refused("benchmark")


@pytest.mark.parametrize("words", [[], ["out=here"], ["hydra.run.dir=here"], ["hydra.sweep.dir=here"]], ids=str)
def test_jobs_of_a_multirun_share_no_folder(measure, place, attempts, words):
    save(place / "x" / "a.safetensors")
    save(place / "y" / "a.safetensors", seed=1)
    measure("-m", "checkpoint=x/a.safetensors,y/a.safetensors,bicubic", *words)
    found = files(place, "here" if words else "runs")
    assert [file.parent.name.rpartition("-")[0] for file in found] == ["a-sr_x2", "a-sr_x2", "bicubic-sr_x2"]
    assert sorted(strictly(file)["checkpoint"] for file in found) == ["bicubic", "x/a.safetensors", "y/a.safetensors"]
    attempts.handled("benchmark")


OTHERS = {
    "checkpoint": ["checkpoint=a.safetensors"],
    "baseline": ["checkpoint=degraded", "task=denoise_color_25"],
    "task": ["checkpoint=bicubic", "task=sr_x3"],
    "protocol": ["checkpoint=bicubic", "task.protocol.border=0"],
    "metrics": ["checkpoint=bicubic", "+metrics=[mae]"],
}


@pytest.mark.parametrize("case", OTHERS)
def test_results_of_something_else_are_kept_beside_each_other(measure, place, attempts, case):
    save(place / "a.safetensors")
    measure("checkpoint=bicubic", "out=out")
    before = strictly(place / "out" / "results.json")
    measure(*OTHERS[case], "out=out")
    first, second = strictly(place / "out" / "results.json")["results"]
    assert first == {key: value for key, value in before.items() if key != "version"}
    assert second != first
    assert [record.test_sets.keys() for record in read_records(place / "out" / "results.json")] == [{"one"}, {"one"}]
    attempts.handled("benchmark")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"checkpoint": "x", ', "out/results.json: cannot be read (Expecting property name"),
        (b"\xff", "out/results.json: cannot be read ('utf-8' codec"),
        (b"[]", "out/results.json: cannot be read (Input should be"),
        (
            b'{"task": "sr_x2", "protocol": {"metrics": []}, "test_sets": {}}',
            "out/results.json: was not written by a benchmark of this version",
        ),
    ],
    ids=["cut", "binary", "list", "of a run"],
)
def test_what_cannot_be_added_to_stays(measure, place, monkeypatch, attempts, content, line):
    (place / "out").mkdir()
    (place / "out" / "results.json").write_bytes(content)
    monkeypatch.setattr("irformer.benchmarks.shared_work.measure_set", None)
    assert measure("checkpoint=bicubic", "out=out").startswith(f"error: {line}")
    assert (place / "out" / "results.json").read_bytes() == content
    attempts.refused("benchmark")


def test_another_set_of_the_same_name_is_refused(measure, place, attempts):
    for name in ("x", "y"):
        (place / name / "val").mkdir(parents=True)
        write_image(place / name / "val" / f"{name}.png", picture(32, 32))
    measure("checkpoint=bicubic", sets="x/val")
    assert "contains results of another test set val, with no image in common; choose" in measure("checkpoint=bicubic", sets="y/val")
    attempts.refused("benchmark")


def test_a_folder_that_cannot_be_written_is_reported_before_measuring(measure, place, monkeypatch, attempts):
    (place / "file").touch()
    monkeypatch.setattr("irformer.benchmarks.results_folder.Path.touch", _raise(PermissionError(13, "Permission denied", "here/.lock")))
    monkeypatch.setattr("irformer.benchmarks.shared_work.measure_set", None)
    line = "error: here/.lock: cannot be written (Permission denied); choose another folder with out=FOLDER"
    assert measure("checkpoint=bicubic", "out=here") == line
    attempts.refused("benchmark")


def _raise(error):
    def function(*_args, **_keywords):
        raise error

    return function


def test_a_full_disk_loses_no_number(measure, place, monkeypatch, attempts):
    """The line that reports it has the numbers that could not be written, and the existing file is kept."""
    measure("checkpoint=bicubic", "out=out")
    before = (place / "out" / "results.json").read_bytes()
    monkeypatch.setattr(
        "irformer.benchmarks.results_folder.write_records", _raise(OSError(28, "No space left on device", "out/results.json"))
    )
    output = measure("checkpoint=bicubic", "out=out", sets="two")
    line = "error: out/results.json: cannot be written (No space left on device); choose another folder with out=FOLDER; measured, but not "
    assert re.fullmatch(re.escape(f"{line}saved: bicubic on two, ") + r"\d+\.\d\d / 0\.\d{4}", output)
    assert (place / "out" / "results.json").read_bytes() == before
    attempts.refused("benchmark")


def test_equal_images_give_strict_json_that_reads_as_infinity(measure, place, attempts):
    write_image(place / "one" / "one.png", np.full((40, 40, 3), 90, np.uint8))
    measure("checkpoint=bicubic", "out=out")
    file = place / "out" / "results.json"
    assert strictly(file)["test_sets"]["one"]["per_image"]["one"]["psnr_y"] == "Infinity"
    assert read_results(file)["test_sets"]["one"]["metrics"]["psnr_y"] == math.inf
    measure("checkpoint=bicubic", "out=out", sets="two")
    assert strictly(file)["test_sets"]["one"]["metrics"]["psnr_y"] == "Infinity"
    attempts.handled("benchmark")


DEN35 = ("task=denoise_color_25", "task.protocol.sigma=35", "model.upsampler=''")


@pytest.mark.parametrize(
    ("words", "label", "rules"),
    [
        ([], "denoise_color_25, sigma 35", {"sigma": 35, "noise": "bgr", "border": 0}),
        (["task.protocol.border=4"], "denoise_color_25, sigma 35, border 4", {"sigma": 35, "border": 4}),
        (["protocol=restormer"], "denoise_color_25, sigma 35, noise rgb, padding reflect_min", {"sigma": 35, "noise": "rgb"}),
        (["task.protocol.sigma=50"], "denoise_color_25, sigma 50", {"sigma": 50}),
        (["task.protocol.sigma=25"], "denoise_color_25", {"sigma": 25}),
        (["task=denoise_color_25"], "denoise_color_25", {"sigma": 25}),
        (["task=denoise_color_50"], "denoise_color_50", {"sigma": 50}),
    ],
    ids=str,
)
def test_a_checkpoint_brings_its_task(measure, place, attempts, words, label, rules):
    """Overrides change the recorded task, and references to a key follow it: the noise has the sigma in the label."""
    save(place / "den35.safetensors", *DEN35)
    measure("checkpoint=den35.safetensors", "out=out", *words)
    record = strictly(place / "out" / "results.json")
    assert (record["task"], record["task_label"]) == (label.partition(",")[0], label)
    assert rules.items() <= record["protocol"].items()
    # The results are the same if the whole task is given on the command line.
    level = [
        f"task.protocol.sigma={record['protocol']['sigma']}",
        *(word for word in words if not word.startswith(("task=", "task.protocol.s"))),
    ]
    measure("checkpoint=den35.safetensors", "out=typed", "task=denoise_color_25", *level)
    assert without_costs(strictly(place / "typed" / "results.json")) == without_costs(record)
    attempts.handled("benchmark")


@pytest.mark.parametrize(
    ("trained", "words", "label", "rules"),
    [
        (["task=denoise_color", "task.sigma=35"], [], "denoise_color_35", {"sigma": 35, "noise": "bgr"}),
        (["task=denoise_color", "task.sigma=35"], ["task.sigma=12.5"], "denoise_color_12.5", {"sigma": 12.5}),
        (["task=denoise_color", "task.sigma=25.0"], [], "denoise_color_25", {"sigma": 25}),
        (
            ["task=denoise_color", "task.sigma=35"],
            ["protocol=restormer"],
            "denoise_color_35, noise rgb, padding reflect_min",
            {"noise": "rgb"},
        ),
        (["task=jpeg_color", "task.quality=15"], [], "jpeg_color_15", {"quality": 15}),
    ],
    ids=str,
)
def test_a_checkpoint_of_a_family_brings_its_level(measure, place, attempts, trained, words, label, rules):
    save(place / "a.safetensors", *trained, "model.upsampler=''")
    assert f"{label}: psnr_rgb" in " ".join(measure("checkpoint=a.safetensors", "out=out", *words).split())
    record = strictly(place / "out" / "results.json")
    assert (record["task"], record["task_label"]) == (label.partition(",")[0], label)
    assert rules.items() <= record["protocol"].items()
    level = [word for word in words if word.startswith("task.")] or trained[1:]
    measure("checkpoint=a.safetensors", "out=typed", trained[0], *level, *(word for word in words if word.startswith("protocol")))
    assert without_costs(strictly(place / "typed" / "results.json")) == without_costs(record)
    attempts.handled("benchmark")


def test_a_published_level_of_a_family_is_the_published_task(measure, place):
    """It has the same results, the same name and the same published rows."""
    measure("checkpoint=degraded", "task=denoise_gray", "task.sigma=25", "out=family")
    measure("checkpoint=degraded", "task=denoise_gray_25", "out=published")
    family, published = (strictly(place / name / "results.json") for name in ("family", "published"))
    assert {**family, "test_sets": without_costs(family)} == {**published, "test_sets": without_costs(published)}
    for family, published in (("denoise_color", "task.sigma=25"), ("jpeg_gray", "task.quality=10")):
        level = published.partition("=")[2]
        task, own = (
            build_task(compose("benchmark", [*words, "checkpoint=x"]).task)
            for words in ([f"task={family}", published], [f"task={family}_{level}"])
        )
        rows = published_rows(task, ["CBSD68", "Classic5"])
        assert task.label == f"{family}_{level}"
        assert rows == published_rows(own, ["CBSD68", "Classic5"])
        assert {row.model for row in rows} >= {"swinir"}


def test_a_task_has_one_level():
    for words, line in (
        (
            ["task=denoise_color", "task.sigma=35", "task.protocol.sigma=5"],
            r"task\.protocol\.sigma=5 and task\.sigma=35: expected equal levels",
        ),
        (["task=denoise_color_blind", "+task.sigma=3"], r"task\.protocol\.sigma=25 and task\.sigma=3: expected equal levels"),
        (["task=sr_x2", "+task.sigma=3"], r"task\.sigma=3: Downscale has no sigma; remove the key"),
    ):
        with pytest.raises(UserError, match=line):
            build_task(compose("benchmark", [*words, "checkpoint=x"]).task)


def test_a_checkpoint_without_its_task_s_configuration(measure, place, attempts):
    """Files of earlier versions contain the task's name, plain weights files the scale; otherwise the task is requested."""
    save(place / "old.safetensors", "task=denoise_color_50", "model.upsampler=''", recorded=False)
    assert "denoise_color_50: psnr_rgb" in measure("checkpoint=old.safetensors")
    save(place / "x3.safetensors", "task=sr_x3", recorded=False, named=False)
    assert "sr_x3: psnr_y" in measure("checkpoint=x3.safetensors")
    attempts.handled("benchmark")
    save(place / "bare.safetensors", "task=denoise_color_50", "model.upsampler=''", recorded=False, named=False)
    assert measure("checkpoint=bare.safetensors") == (
        "error: checkpoint=bare.safetensors does not record its task (scale 1, 3 channels): give task=NAME, such as task=denoise_color_25"
    )
    attempts.refused("benchmark")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task.protocol.sigma=35"], "task.protocol.sigma=35: the task of the checkpoint, sr_x2, has no such key"),
        (["task.protocol.sgima=35"], "unknown key task.protocol.sgima; did you mean task.protocol.sigma?"),
        (["task.degradation.sigma=3"], "task.degradation.sigma=3: the task of the checkpoint, sr_x2, has no such key"),
    ],
    ids=str,
)
def test_a_word_that_does_not_fit_the_checkpoint_s_task(measure, place, attempts, words, line):
    save(place / "a.safetensors")
    assert measure("checkpoint=a.safetensors", *words) == f"error: {line}"
    assert not (place / "runs").exists() or not files(place)
    attempts.refused("benchmark")


def test_a_task_of_one_s_own_is_measured_as_recorded(measure, place, attempts):
    save(place / "own.safetensors", "task=sr_x2", "task.name=mine", "task.protocol.border=5")
    measure("checkpoint=own.safetensors", "out=out")
    record = strictly(place / "out" / "results.json")
    assert (record["task"], record["protocol"]["border"]) == ("mine", 5)
    attempts.handled("benchmark")
    line = "error: the checkpoint was trained for the task mine, which configs/task does not have: task.protocol.border=0 needs task=NAME"
    assert measure("checkpoint=own.safetensors", "task.protocol.border=0") == line
    attempts.refused("benchmark")


def test_a_recorded_task_builds_no_foreign_class(measure, place, attempts):
    cfg = compose("train", [*TINY, "name=x"])
    model, task = (OmegaConf.to_container(node, resolve=True) for node in (cfg.model, cfg.task))
    task["degradation"] = {"_target_": "numpy.savetxt", "fname": "written", "X": [1]}
    save_network(place / "w.safetensors", build_network(cfg.model), model, "sr_x2", 1, {}, task)
    line = measure("checkpoint=w.safetensors")
    assert line.startswith("error: w.safetensors: ")
    assert "names the class numpy.savetxt; a file may only name irformer's tasks and degradations" in line
    assert not (place / "written").exists()
    attempts.refused("benchmark")


@pytest.mark.parametrize(
    ("words", "label", "models", "differences"),
    [
        (["task=denoise_color_25"], "denoise_color_25", {"swinir", "restormer"}, {"noise rgb, here bgr"}),
        (["task=denoise_color_25", "task.protocol.sigma=35"], "denoise_color_25, sigma 35", set(), set()),
        (["task=denoise_color_25", "task.degradation.test_sigma=35"], "denoise_color_25, degradation.test_sigma 35", set(), set()),
        (["task=jpeg_gray_10", "task.protocol.quality=12"], "jpeg_gray_10, quality 12", set(), set()),
        (["task=sr_x2", "task.test_sets=[Set5]"], "sr_x2", {"swinir", "hat"}, set()),
        (["task=sr_x2", "protocol=kair"], "sr_x2, padding flip_always", {"swinir", "hat"}, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # the same order in all processes
)
def test_labels_and_published_rows_follow_the_words(attempts, words, label, models, differences):
    task = build_task(compose("benchmark", [*words, "checkpoint=x"]).task)
    assert task.label == label
    rows = published_rows(task, ["Set5", "CBSD68", "Classic5"])
    assert (models <= {row.model for row in rows}) if models else not rows
    assert differences <= {difference for row in rows for difference in row.differences}
    attempts.handled("benchmark")


def test_rows_of_another_border_are_marked():
    task = build_task(compose("benchmark", ["task=sr_x2", "task.protocol.border=0", "checkpoint=x"]).task)
    assert {difference for row in published_rows(task, ["Set5"]) for difference in row.differences} >= {"border 2, here 0"}
    assert all("border 2, here 0" in row.differences for row in published_rows(task, ["Set5"]))


def test_the_table_is_titled_by_the_label(measure, place):
    save(place / "den35.safetensors", *DEN35)
    assert "denoise_color_25, sigma 35: psnr_rgb / ssim_rgb" in measure("checkpoint=den35.safetensors")
    (file,) = files(place)
    assert file.parent.name.startswith("den35-denoise_color_25_sigma_35-")


def test_every_task_is_its_own():
    """No task differs from itself, so the label of an unchanged task is its name."""
    for name in ("sr_x2", "sr_x8", "denoise_gray_blind", "jpeg_color_blind", "derain"):
        cfg = compose("benchmark", [f"task={name}", "checkpoint=x"])
        assert changed_keys(OmegaConf.to_container(cfg.task, resolve=True)) == {}


def test_words_for_any_task_are_known_before_the_checkpoint_is_read():
    """configs/task/_of_checkpoint.yaml contains every key of every task."""

    def keys(node, prefix=""):
        for key, value in node.items():
            yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    known = set(keys(OmegaConf.to_container(compose("benchmark", ["checkpoint=x"]).task)))
    for file in Path("configs/task").glob("[!_]*.yaml") if Path("configs/task").is_dir() else []:
        task = OmegaConf.to_container(compose("benchmark", [f"task={file.stem}", "checkpoint=x"]).task)
        assert {key for key in keys(task) if "_target_" not in key} <= known, file
