"""Runs from the first step to the report: their files, resuming, and consistent results."""

import csv
import json
import math

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny import build

from irformer.config.compose import compose
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.results import VERSION, SetResult, read_results
from irformer.training.build import build_run
from irformer.weights.checkpoints import load_checkpoint

SMALL = [
    "norm=iln",
    "model=swinir_tiny",
    "model.embed_dim=8",
    "model.depths=[2,1]",
    "model.num_heads=[2,2]",
    "model.drop_path_rate=0.3",
    "data=sample",
    "test_sets=[sample]",
    "trainer=cpu",
    "logger=csv",
    "batch_size=2",
    "patch_size=16",
    "trainer.log_every_n_steps=1",
    "callbacks.probe.every=2",
    "name=test",
]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A small validation set: one crop of a photo."""
    from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
    from irformer.imaging.images import read_image, write_image

    folder = tmp_path_factory.mktemp("val")
    write_image(folder / "eye.png", read_image(sample_photos(SAMPLE_VAL)[1])[80:145, 100:181])
    return folder


def execute(folder, photo, *overrides: str) -> dict:
    cfg = compose("train", [*SMALL, f"data.val={photo}", f"test_sets=[{photo}]", *overrides])
    return build_run(cfg, folder).execute(Console(quiet=True))


def rows(file) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_run_leaves_its_folder(tmp_path, photo):
    record = execute(tmp_path / "run", photo, "trainer.max_steps=4", "trainer.val_check_interval=2", "logger=tensorboard")
    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "checkpoints/last.ckpt",
        "checkpoints/best.safetensors",
        "metrics.csv",
        "dynamics.csv",
        "vectors.csv",
        "results.json",
        "report.html",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert {"version": VERSION, **record} == json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(record["test_sets"][photo.name]["per_image"]) == ["eye"]

    dynamics = rows(tmp_path / "run" / "dynamics.csv")
    assert list(dynamics[0]) == ["step", "layer", "name", "statistic", "value", "kind", "source"]
    assert {(row["step"], row["layer"], row["name"], row["kind"]) for row in dynamics if row["source"] == "probe"} == {
        (str(step), str(i), f"layers.{i}", "groups") for step in (0, 2, 4) for i in range(2)
    }


def test_validation_benchmark_and_checkpoint_give_one_number(tmp_path, photo):
    """The PSNR logged in validation, in results.json and of the reloaded file is bit-identical: all use averaged weights."""
    record = execute(tmp_path, photo, "trainer.max_steps=5", "trainer.val_check_interval=5")
    validated = {row["name"]: float(row["value"]) for row in rows(tmp_path / "metrics.csv") if row["name"].startswith("val/")}
    measured = record["test_sets"][photo.name]["metrics"]
    assert validated["val/psnr_y"] == pytest.approx(measured["psnr_y"], abs=1e-5)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    best = load_file(tmp_path / "checkpoints" / "best.safetensors")
    for name, value in best.items():
        assert torch.equal(value, state["state_dict"][f"network.{name}"])  # the average
    assert any(not torch.equal(value, state["current_model_state"][f"network.{name}"]) for name, value in best.items())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, photo, accumulate):
    parts = [f"trainer.accumulate_grad_batches={accumulate}", "trainer.val_check_interval=3", "optim.schedule.milestones=[2,4]"]
    execute(tmp_path / "whole", photo, *parts, "trainer.max_steps=6")
    execute(tmp_path / "parts", photo, *parts, "trainer.max_steps=3")
    execute(tmp_path / "parts", photo, *parts, "trainer.max_steps=6", f"resume={tmp_path / 'parts'}")
    whole, resumed = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert whole["global_step"] == resumed["global_step"] == 6
    for part in ("state_dict", "current_model_state"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name
    for a, b in zip(whole["optimizer_states"][0]["state"].values(), resumed["optimizer_states"][0]["state"].values(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"])
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    losses = [
        [(row["step"], row["value"]) for row in rows(tmp_path / name / "metrics.csv") if row["name"] == "train/loss"]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


def test_the_loss_falls(tmp_path, photo):
    execute(tmp_path, photo, "trainer.max_steps=60", "optim.lr=2e-3", "trainer.val_check_interval=60")
    losses = [float(row["value"]) for row in rows(tmp_path / "metrics.csv") if row["name"] == "train/loss"]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_a_run_starts_from_other_weights(tmp_path, photo):
    execute(tmp_path / "first", photo, "trainer.max_steps=2")
    first = load_file(tmp_path / "first" / "checkpoints" / "best.safetensors")
    cfg = compose("train", [*SMALL, f"init_from={tmp_path / 'first'}", "trainer.max_steps=1"])
    network = build_run(cfg, tmp_path / "second").module.network
    assert all(torch.equal(value, first[name]) for name, value in network.state_dict().items())

    other = compose("train", [*SMALL, f"init_from={tmp_path / 'first'}", "model.embed_dim=12"])
    with pytest.raises(UserError, match=r"found weights of swinir_tiny, norm iln, sr_x2, which do not match .* of a different shape"):
        build_run(other, tmp_path / "third")


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, photo):
    execute(tmp_path, photo, "trainer.max_steps=1")
    with pytest.raises(UserError, match=r"already contains a run: resume="):
        execute(tmp_path, photo, "trainer.max_steps=1")
    with pytest.raises(UserError, match=r"is already at step 1: set trainer\.max_steps to a larger number"):
        execute(tmp_path, photo, "trainer.max_steps=1", f"resume={tmp_path}")


def test_a_checkpoint_rebuilds_its_network_and_nothing_else(tmp_path, photo):
    execute(tmp_path, photo, "trainer.max_steps=1")
    loaded = load_checkpoint(tmp_path)
    assert (loaded.model["name"], loaded.model["norm"]["name"], loaded.task, loaded.step) == ("swinir_tiny", "iln", "sr_x2", 1)

    from safetensors.torch import save_file

    file = tmp_path / "evil.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"irformer": json.dumps({"model": {"_target_": "os.system", "command": "true"}})})
    with pytest.raises(UserError, match=r"names the class os\.system; a file may only name irformer's networks and norms"):
        load_checkpoint(file)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match=r"evil\.safetensors: damaged or not a safetensors file"):
        load_checkpoint(file)
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_the_batch_must_be_shared_evenly(tmp_path, photo):
    with pytest.raises(UserError, match=r"batch_size=2 \(global\) cannot be split evenly among .* 3 accumulated .*: use a multiple of 3"):
        execute(tmp_path, photo, "trainer.accumulate_grad_batches=3", "trainer.max_steps=1")


def test_without_data_the_summary_says_how_to_get_it(tmp_path):
    cfg = compose("train", [*SMALL, "data=auto", f"paths.data={tmp_path}"])
    run = build_run(cfg, tmp_path / "run")
    assert f"no DIV2K in {tmp_path}" in run.summary["note"]
    assert "data=folder data.path=FOLDER" in run.summary["note"]
    assert find_test_set("sample", tmp_path, run.task).name == run.test_sets[0].name


def test_an_infinite_psnr_is_strict_json(tmp_path, monkeypatch):
    """As in a benchmark: JSON has no infinity, and strict readers refuse the bare word."""
    perfect = SetResult("eyes", "made on the fly", [], {"eye": {"psnr_y": math.inf, "ssim_y": 1.0}})
    monkeypatch.setattr("irformer.training.run.evaluate_sets", lambda restorer, test_sets: [perfect])
    run = build(tmp_path, "trainer.max_steps=1")
    run.execute(Console(quiet=True))
    file = run.folder / "results.json"
    json.loads(file.read_text(), parse_constant=pytest.fail)
    assert read_results(file)["test_sets"]["eyes"]["per_image"]["eye"]["psnr_y"] == math.inf
