"""Arms set against each other: the statistics against independent arithmetic, what is said of them, and what is left out."""

import json
import math
import statistics
import sys

import numpy as np
import pytest
from scipy import stats

from irformer.arms import arm_labels
from irformer.commands.compare import compare_runs
from irformer.compare import bootstrap_interval, compare, paired_difference, sweep_table
from irformer.errors import UserError

PROTOCOL = {"lr": "matlab_uint8", "border": 2, "metrics": ["psnr_y", "ssim_y"]}


def write_run(folder, norm: str, seed: int, psnr: dict[str, float], test_set: str = "Set5", **further) -> None:
    """A finished run as training leaves it: config.yaml with its references, results.json."""
    folder.mkdir(parents=True)
    lines = {"name": folder.name, "seed": seed, "optim.lr": further.pop("lr", 1e-4)}
    config = f"name: {lines['name']}\nseed: {seed}\noptim:\n  lr: {lines['optim.lr']}\n  optimizer:\n    lr: ${{optim.lr}}\n"
    config += f"norm:\n  name: {norm}\n  block:\n    _target_: irformer.norms.{norm}\nmodel:\n  name: hat\n  norm: ${{norm}}\n"
    config += f"trainer:\n  devices: {further.pop('devices', 1)}\n"
    (folder / "config.yaml").write_text(config)
    per_image = {image: {"psnr_y": value, "ssim_y": value / 40} for image, value in psnr.items()}
    metrics = {name: sum(row[name] for row in per_image.values()) / len(per_image) for name in ("psnr_y", "ssim_y")}
    record = {"checkpoint": "x", "task": "sr_x2", "protocol": PROTOCOL, "step": 10, **further}
    record["test_sets"] = {test_set: {"images": len(psnr), "metrics": metrics, "per_image": per_image}}
    (folder / "results.json").write_text(json.dumps(record))


def images(*values: float) -> dict[str, float]:
    return {f"i{number}": value for number, value in enumerate(values)}


def test_interval_is_the_percentile_bootstrap_of_scipy():
    values = np.random.default_rng(7).normal(0.3, 1.0, 60)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=100_000, rng=np.random.default_rng(1))
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)  # 10,000 resamples: about 0.003 of chance
    assert bootstrap_interval(values) == (low, high), "the same numbers each time"


def test_paired_difference_by_hand():
    """Three images, two seeds: every number against the standard library's arithmetic."""
    a = {0: np.array([30.0, 31.0, 33.0]), 1: np.array([30.2, 31.4, 33.0])}
    b = {0: np.array([29.9, 30.8, 32.7]), 1: np.array([29.7, 31.1, 32.6])}
    found = paired_difference("a", "b", a, b)
    by_seed = [statistics.fmean((0.1, 0.2, 0.3)), statistics.fmean((0.5, 0.3, 0.4))]
    assert found.mean == pytest.approx(statistics.fmean(by_seed))
    assert found.seed_deviation == pytest.approx(statistics.stdev(by_seed))
    # The mean of three draws out of (0.3, 0.25, 0.35): the extremes have 1 chance in 27 each, more than 2.5 %.
    assert found.interval == pytest.approx((0.25, 0.35))
    assert found.verdict == "a is higher"
    assert paired_difference("b", "a", b, a).verdict == "a is higher"


def test_pairing_takes_out_what_images_and_seeds_share():
    """Images that differ by 10 dB and seeds that differ by 1 dB hide no constant difference of 0.05 dB, unless the seeds are other ones."""
    level = np.linspace(25, 35, 20)
    a = {seed: level + seed + 0.05 for seed in (0, 1, 2)}
    paired = paired_difference("a", "b", a, {seed: level + seed for seed in (0, 1, 2)})
    assert paired.interval == pytest.approx((0.05, 0.05))
    assert paired.seed_deviation == pytest.approx(0, abs=1e-12)
    assert not paired.noise
    other = paired_difference("a", "b", a, {seed: level + seed - 3 for seed in (3, 4, 5)})
    assert other.seeds == []
    assert other.mean == pytest.approx(0.05)
    assert other.seed_deviation == pytest.approx(math.hypot(1, 1))
    assert other.verdict == "within the noise: seeds scatter by more than the difference"


def test_within_the_noise_by_images_and_not_decided_by_one():
    values = np.array([0.4, -0.5, 0.6, -0.3, 0.1])
    zero = np.zeros(5)
    assert paired_difference("a", "b", {0: values}, {0: zero}).verdict == "within the noise: the interval contains 0"
    assert paired_difference("a", "b", {0: zero + 1}, {0: zero}).verdict == "a is higher; how far seeds scatter is not known"
    assert paired_difference("a", "b", {0: zero[:1] + 1}, {0: zero[:1]}).verdict == "not decided: one image has no interval"


def test_arms_of_folders(tmp_path):
    """Mean and deviation over seeds exactly; machine keys and names make no arm; a run that is not at its end is named."""
    for seed, gain in ((0, 0.0), (1, 0.1), (2, 0.5)):
        write_run(tmp_path / "a" / f"ln{seed}", "ln", seed, images(30 + gain, 32 + gain, 35 + gain), devices=seed + 1)
        write_run(tmp_path / "b" / f"iln{seed}", "iln", seed, images(30.5 + gain, 32.7 + gain, 35.6 + gain))
    (tmp_path / "b" / "going").mkdir()
    (tmp_path / "b" / "going" / "config.yaml").write_text("seed: 3\n")
    comparison = compare([tmp_path / "a", tmp_path / "b"])
    part = comparison.sets[0]
    assert [(arm.label, arm.seeds.keys()) for arm in part.arms] == [("norm=ln", {0, 1, 2}), ("norm=iln", {0, 1, 2})]
    means = [statistics.fmean((30, 32, 35)) + gain for gain in (0, 0.1, 0.5)]
    assert part.arms[0].mean == pytest.approx(statistics.fmean(means))
    assert part.arms[0].deviation == pytest.approx(statistics.stdev(means))
    assert part.differences[0].mean == pytest.approx(-0.6)
    assert comparison.notes == ["Left out, since they are not at their end: going."]
    assert compare([tmp_path], reference="ln").sets[0].differences[0].a == "norm=iln"
    assert compare([tmp_path], metric="ssim_y").sets[0].differences[0].mean == pytest.approx(-0.6 / 40)

    table = sweep_table(tmp_path)
    assert table is not None
    arm = next(row for row in table.rows if row[0] == "norm=ln")
    assert arm[1:] == ["mean of seeds 0, 1, 2", "", "32.53 ± 0.265 / 0.8133 ± 0.00661"]
    assert [row[1] for row in table.rows] == ["mean of seeds 0, 1, 2", "ln0", "ln1", "ln2", "mean of seeds 0, 1, 2", "iln0", "iln1", "iln2"]


def test_equal_images_and_other_images_are_left_out_and_named(tmp_path):
    write_run(tmp_path / "ln", "ln", 0, images(30, 31, 32, 40))
    write_run(tmp_path / "iln", "iln", 0, images(30.1, float("inf"), 32.2))
    comparison = compare([tmp_path])
    part = comparison.sets[0]
    assert part.images == 2
    assert part.differences[0].mean == pytest.approx(0.15)
    assert any("Only the 3 images that all runs were measured on are compared, of 4 in all" in note for note in part.notes)
    assert any("psnr_y is infinite or undefined there" in note and "i1" in note for note in part.notes)
    assert sweep_table(tmp_path) is not None  # its means are infinite, as the benchmark prints them


def test_only_arms_that_differ_in_one_key(tmp_path):
    for lr in (1e-4, 2e-4):
        for norm in ("ln", "iln"):
            write_run(tmp_path / f"{norm}{lr}", norm, 0, images(30, 31), lr=lr)
    assert len(compare([tmp_path]).sets[0].differences) == 6
    pairs = {(d.a, d.b) for d in compare([tmp_path], by="norm").sets[0].differences}
    assert pairs == {(f"optim.lr={lr} norm=iln", f"optim.lr={lr} norm=ln") for lr in (0.0001, 0.0002)}
    assert {d.verdict for d in compare([tmp_path], by="norm").sets[0].differences} == {"within the noise: the interval contains 0"}


def test_labels_say_what_sets_an_arm_apart_and_no_more():
    ln = {"norm.name": "ln", "norm.block": "LayerNorm", "norm.ends": "same", "optim.lr": 1e-4}
    iln = {"norm.name": "iln", "norm.block": "ILN", "norm.ends": "affine", "optim.lr": 1e-4}
    assert arm_labels([ln, iln]) == ["norm=ln", "norm=iln"]
    control = {**ln, "norm.ends": "affine"}
    assert arm_labels([ln, control, iln]) == ["norm=ln norm.ends=same", "norm=ln norm.ends=affine", "norm=iln"]
    assert arm_labels([ln, {**ln, "optim.lr": 2e-4}]) == ["optim.lr=0.0001", "optim.lr=0.0002"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere: no such folder; expected that of a sweep or a run"),
        (["empty"], "empty: no finished runs; expected folders with config.yaml and results.json"),
        (["a", "--metric", "psnr_b"], "--metric psnr_b: not measured by these runs; known: psnr_y, ssim_y"),
        (["a", "--test-set", "Set14"], "--test-set Set14: not measured by these runs; known: Set5"),
        (["a", "--by", "model"], "--by model: no two arms differ in model alone; arms: norm=iln, norm=ln"),
        (["a", "--reference", "rms"], "--reference rms: no arm is called so; arms: norm=iln, norm=ln"),
        (["a", "b"], "a/ln and b/ln are runs of the same configuration and seed 0: name folders that hold only one of them"),
        (["broken"], "broken/results.json: cannot be read"),
    ],
    ids=str,
)
def test_a_mistake_gets_one_line(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "a" / "ln", "ln", 0, images(30, 31))
    write_run(tmp_path / "a" / "iln", "iln", 0, images(30, 31))
    write_run(tmp_path / "b" / "ln", "ln", 0, images(30, 31))
    write_run(tmp_path / "broken", "ln", 0, images(30, 31))
    (tmp_path / "broken" / "results.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    with pytest.raises(SystemExit) as exit_:
        compare_runs()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_no_finite_image_is_said(tmp_path):
    write_run(tmp_path / "ln", "ln", 0, images(float("inf")))
    with pytest.raises(UserError, match="Set5: no image has a finite psnr_y in all runs"):
        compare([tmp_path])


def test_files_hold_what_is_printed(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        write_run(tmp_path / f"ln{seed}", "ln", seed, images(30 + seed, 32))
        write_run(tmp_path / f"iln{seed}", "iln", seed, images(30.5 + seed, 32.25))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path), "--out", str(tmp_path / "out")])
    compare_runs()
    printed = capsys.readouterr().out
    markdown = (tmp_path / "out" / "compare.md").read_text()
    for cell in ("norm=iln - norm=ln", "+0.375", "[+0.250, +0.500]", "norm=iln is higher", "31.375", "0.354"):
        assert cell in printed, cell
        assert cell in markdown, cell
    record = json.loads((tmp_path / "out" / "compare.json").read_text())["test_sets"]["Set5"]
    assert (
        record["differences"][0] | {"interval": [0.25, 0.5], "mean": 0.375, "seeds": [0, 1], "within_noise": False}
        == record["differences"][0]
    )
    assert record["arms"]["norm=iln"]["deviation"] == pytest.approx(0.5 / math.sqrt(2))
