"""Metrics of other packages: reported wherever built-in ones are, with their own direction, and checked before the first step."""

import csv
import io
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf
from rich.console import Console

from irformer.commands.benchmark import benchmark
from irformer.commands.train import train as train_command
from irformer.config.compose import compose
from irformer.config.metrics import build_metrics
from irformer.config.saved import read_saved_config
from irformer.config.tasks import build_task
from irformer.core.trust import Trust
from irformer.errors import UserError
from irformer.evaluation.results import SetResult, read_results
from irformer.imaging.images import write_image
from irformer.metrics import MAE, METRICS, Metric
from irformer.reporting.page import benchmark_table
from irformer.runs import sweep
from irformer.runs.arms import differing_keys, flat_config
from irformer.schema.roles import changed_keys
from irformer.training.build import build_run
from irformer.training.callbacks.saving import BestWeights
from irformer.weights.checkpoints import network_record, save_weights, saved_validation

HERE = __name__


class Edges(Metric):
    """Mean error of the differences between neighboring rows, times a factor."""

    higher_is_better = False
    digits = 3
    unit = "gray levels"
    smallest_side = 2

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, restored, truth):
        a, b = (np.diff(image.astype(np.float64), axis=0) for image in (restored, truth))
        return self.factor * np.abs(a - b).mean()


class NoDirection(Metric):
    def __call__(self, restored, truth):
        return 0.0


class NoCall(Metric):
    higher_is_better = True


class Unrelated:
    pass


class GrayOnly(Edges):
    channels = (1,)


class RgbOnly(Edges):
    channels = (3,)


class Large(Edges):
    smallest_side = 200


class Undeclared(Edges):
    smallest_side = 1

    def __call__(self, restored, truth):
        return float(np.gradient(restored.astype(float), axis=0).mean())


class Textual(Edges):
    def __call__(self, restored, truth):
        return "good"


class OddDigits(Edges):
    digits = 2.5


class RandomWeights(Edges):
    def __init__(self) -> None:
        super().__init__()
        torch.randn(5)


def edge(name: str = "Edges", key: str = "edge") -> str:
    return f"+metrics.{key}._target_={HERE}.{name}"


TINY = [
    "norm=iln",
    "model=swinir_tiny",
    "model.embed_dim=8",
    "model.depths=[1]",
    "model.num_heads=[2]",
    "data=sample",
    "trainer=cpu",
    "logger=csv",
    "batch_size=2",
    "patch_size=16",
    "callbacks.probe=null",
    "trainer.val_check_interval=1",
    "trainer.log_every_n_steps=1",
    "trainer.max_steps=2",
    "name=tiny",
]


@pytest.fixture
def corner(tmp_path):
    (tmp_path / "corner").mkdir()
    write_image(tmp_path / "corner" / "a.png", picture(48, 40))
    return tmp_path / "corner"


def build(corner, *words):
    return build_run(compose("train", [*TINY, f"data.val={corner}", f"test_sets=[{corner}]", *words]), corner.parent / "run")


def test_a_foreign_metric_is_reported_and_selects_the_best_checkpoint(corner):
    run = build(corner, edge(), "+metrics.edge.factor=2", "+metrics=[mae]", "task.protocol.metrics=[edge,psnr_y]")
    printed = io.StringIO()
    record = run.execute(Console(width=200, file=printed))
    assert list(run.task.metrics) == ["edge", "psnr_y", "mae"]
    assert run.task.metrics["edge"].factor == 2

    with (run.folder / "metrics.csv").open(newline="") as file:
        logged = {(row["name"], int(row["step"])): float(row["value"]) for row in csv.DictReader(file)}
    edges = [value for (name, _), value in logged.items() if name == "val/edge"]
    best = saved_validation(run.folder / "checkpoints" / "best.safetensors")
    assert len(edges) == 2
    assert best["edge"] == pytest.approx(min(edges), rel=1e-6)
    assert list(best) == ["edge", "psnr_y", "mae"]

    found = read_results(run.folder / "results.json")
    assert list(found["test_sets"]["corner"]["metrics"]) == ["edge", "psnr_y", "mae"]
    assert found["test_sets"]["corner"]["metrics"] == pytest.approx(best, rel=1e-6)
    assert found["protocol"]["metrics"] == ["edge", "psnr_y"]
    assert found["metrics"] == {
        "edge": {"higher_is_better": False, "digits": 3, "unit": "gray levels"},
        "psnr_y": {"higher_is_better": True, "digits": 2, "unit": "dB"},
        "mae": {"higher_is_better": False, "digits": 3, "unit": "gray levels"},
    }
    values = record["test_sets"]["corner"]["metrics"]
    cell = f"{values['edge']:.3f} / {values['psnr_y']:.2f} / {values['mae']:.3f}"
    assert cell in printed.getvalue()
    page = (run.folder / "report.html").read_text()
    assert all(f'data-value="{values[name]!r}"' in page for name in values)


@pytest.mark.parametrize(("first", "saved"), [("edge", [3.0, 1.0]), ("psnr_y", [3.0, 4.0])])
def test_the_best_weights_follow_the_direction(corner, first, saved):
    run = build(corner, edge(), f"task.protocol.metrics=[{first}]")
    kept = []
    best = BestWeights(lambda weights, step, metrics: kept.append(metrics[first]))
    state = SimpleNamespace(lightning_module_state_dict=dict)
    trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, global_step=1, strategy=state, datamodule=run.data)
    best.setup(trainer, run.module, "fit")
    for value in (math.nan, 3.0, 3.0, 1.0, math.nan, 4.0):
        run.module.validation_metrics = lambda value=value: {first: value}
        best.on_validation_epoch_end(trainer, run.module)
    assert kept == saved
    resumed = BestWeights(best.save)
    resumed.setup(trainer, run.module, "fit")
    resumed.load_state_dict(best.state_dict())
    run.module.validation_metrics = lambda: {first: 2.0}
    resumed.on_validation_epoch_end(trainer, run.module)
    assert kept == saved


def test_a_metric_changes_nothing_of_what_a_run_learns(corner):
    """Metrics that build a network draw random numbers."""
    plain, measured = build(corner), build(corner, edge("RandomWeights"))
    for name, value in plain.module.network.state_dict().items():
        assert torch.equal(value, measured.module.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["task.protocol.metrics=[edge,lpips]", edge()],
            "sr_x2: task.protocol.metrics: unknown lpips; known: psnr_y, ssim_y, psnr_rgb, ssim_rgb, psnr, ssim, psnr_b, edge; "
            "add one from another package with +metrics.lpips._target_=CLASS",
        ),
        ([edge(key="psnr_y")], "metrics.psnr_y: is the name of a built-in metric, expected another name"),
        (["+metrics={a-b: {_target_: irformer.metrics.MAE}}"], "metrics.a-b: expected a name of letters, digits and _"),
        (
            [edge("NoDirection")],
            f"metrics.edge: {HERE}.NoDirection has no higher_is_better; expected True or False as an attribute of the class",
        ),
        (
            [edge("NoCall")],
            f"metrics.edge: {HERE}.NoCall: Can't instantiate abstract class NoCall",
        ),
        (
            [edge("Unrelated")],
            f"metrics.edge: {HERE}.Unrelated is not a metric; expected a subclass of irformer.metrics.Metric with higher_is_better and "
            "__call__(restored, truth)",
        ),
        ([edge("OddDigits")], f"metrics.edge: {HERE}.OddDigits: digits is 2.5, expected a whole number from 0 to 10"),
        ([edge("Textual")], f"metrics.edge: {HERE}.Textual returns a str, expected a number"),
        (
            [edge("Undeclared")],
            f"metrics.edge: {HERE}.Undeclared cannot measure an image of 1x1 pixels with 3 channels (ValueError: Shape of array too small "
            "to calculate a numerical gradient, at least (edge_order + 1) elements are required.); if it needs a larger one, set its "
            "smallest_side",
        ),
        (
            [edge("GrayOnly")],
            "sr_x2: metrics: edge accepts images with 1 channel, but the task's images have 3; choose other metrics or another task",
        ),
        (
            ["task=denoise_gray_25", edge("RgbOnly"), "task.protocol.metrics=[edge]"],
            "denoise_gray_25: task.protocol.metrics: edge accepts images with 3 channels, but the task's images have 1; choose other "
            "metrics or another task",
        ),
        (
            ["task=denoise_gray_25", "task.protocol.metrics=[psnr_y]"],
            "denoise_gray_25: task.protocol.metrics: psnr_y accepts images with 3 channels, but the task's images have 1; choose other "
            "metrics or another task",
        ),
        (
            [edge("Large")],
            "CORNER/a.png: 40x48 pixels, expected at least 204x204 to measure psnr_y, ssim_y, edge with a border of 2: remove the image "
            "from the test set",
        ),
        ([edge(), "+metrics.edge.size=3"], "unknown key metrics.edge.size: Edges takes factor; '~metrics.edge.size' removes it"),
        ([edge(), "+metrics.edge.factor=x"], "metrics.edge.factor=x: expected a number"),
        (["+metrics.edge=3"], "metrics.edge=3: expected a _target_ class and its arguments"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_metric_is_one_line_before_the_first_step(corner, attempts, words, line):
    with pytest.raises(UserError) as caught:
        build(corner, *words)
    message = str(caught.value).replace(str(corner), "CORNER")
    assert message == line or (line.endswith("class NoCall") and message.startswith(line) and "\n" not in message)
    attempts.refused("config")


def test_words_of_the_group(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for word, line in (
        (
            "+metrics=[mea]",
            "error: metrics=mea: unknown metrics; known: dists, flip, lpips, mae, ms_ssim, rmse, ssimulacra2; did you mean mae?\n",
        ),
        ("metrics=[mae]", "error: metrics: a group without a default; expected +metrics=NAME or +metrics=[NAME,NAME]\n"),
    ):
        monkeypatch.setattr(sys, "argv", ["train.py", word])
        with pytest.raises(SystemExit):
            train_command()
        assert capsys.readouterr().err == line


def test_a_null_metric_is_left_out():
    assert list(build_metrics({"mae": {"_target_": "irformer.metrics.MAE", "on_y": True}, "rmse": None}, channels=3)) == ["mae"]
    assert build_metrics(None, channels=3) == {}


def test_a_saved_configuration_names_metrics_under_the_rule_of_its_other_classes(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("metrics:\n  mae:\n    _target_: irformer.metrics.MAE\n")
    assert read_saved_config(file, Trust()).metrics.mae._target_ == "irformer.metrics.MAE"
    file.write_text("metrics:\n  edge:\n    _target_: theirs.EdgeError\n")
    with pytest.raises(UserError, match=r"metrics\.edge names the class theirs\.EdgeError; .* trust=\[theirs\]"):
        read_saved_config(file, Trust())


def test_runs_without_the_section_are_the_same_experiment():
    """Their config.yaml has no `metrics`: a sweep includes them, and resuming them changes nothing."""
    now = compose("train", ["name=x"])
    before = now.copy()
    OmegaConf.set_struct(before, False)
    del before["metrics"]
    assert differing_keys(flat_config(before), flat_config(now)) == []
    plain = [OmegaConf.to_container(config, resolve=False) for config in (before, now)]
    assert changed_keys(*plain) == []
    assert differing_keys(flat_config(now), flat_config(compose("train", ["name=x", "+metrics=[mae]"]))) == ["metrics.mae._target_"]


@pytest.mark.parametrize(("metrics", "score"), [(["psnr_y", "mae"], 30.0), (["mae", "psnr_y"], -2.5)])
def test_a_sweeper_maximizes_a_score_of_which_higher_is_better(tmp_path, metrics, score):
    cfg = compose("train", ["name=x", "+metrics=[mae]", f"task.protocol.metrics=[{','.join(metrics)}]"])
    validation = {name: {"psnr_y": 30.0, "mae": 2.5}[name] for name in metrics}
    save_weights(tmp_path / sweep.BEST, {"a": torch.zeros(1)}, network_record({}, None, 1, validation, None))
    assert sweep._score(cfg, tmp_path) == score


def test_a_benchmark_adds_columns_and_keeps_them_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    write_image(tmp_path / "one" / "a.png", picture(32, 40))

    def measure(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "checkpoint=bicubic", "test_sets=[one]", "device=cpu", *words])
        capsys.readouterr()
        try:
            benchmark()
        except SystemExit:
            return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        return capsys.readouterr().out

    assert "sr_x2: psnr_y / ssim_y / mae / edge" in measure("+metrics=[mae]", edge(), "out=out")
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["extra_metrics"] == {"mae": {"_target_": "irformer.metrics.MAE"}, "edge": {"_target_": f"{HERE}.Edges"}}
    assert list(record["test_sets"]["one"]["per_image"]["a"]) == ["psnr_y", "ssim_y", "mae", "edge"]
    assert "sr_x2: psnr_y / ssim_y " in measure("out=out"), "results without them are kept beside"
    first, second = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert {"version": 2, **first} == record
    assert list(second["test_sets"]["one"]["per_image"]["a"]) == ["psnr_y", "ssim_y"]
    measure()
    measure("+metrics=[mae]")
    folders = [file.parent for file in (tmp_path / "runs").rglob("results.json")]
    assert len(folders) == 2
    assert measure("task.protocol.metrics=[edge]").startswith("error: sr_x2: task.protocol.metrics: unknown edge; known: psnr_y")


def test_tables_show_extra_metrics_after_those_of_the_protocol():
    task = build_task(compose("benchmark", ["checkpoint=none", "task=sr_x2"]).task, {"mae": {"_target_": "irformer.metrics.MAE"}})
    result = SetResult("Set5", "files", per_image={"baby": {"psnr_y": 38.0, "ssim_y": 0.96, "mae": 1.23456}})
    table = benchmark_table(task, {"ours": [result]})
    assert table.title == "sr_x2: psnr_y / ssim_y / mae"
    assert table.texts[0] == ["ours", "38.00 / 0.9600 / 1.235"]
    assert all(text.count("/") == 1 for _, text in table.texts[1:]), "published rows lack it"
    assert isinstance(task.metrics["mae"], MAE)
    assert "mae" not in METRICS
