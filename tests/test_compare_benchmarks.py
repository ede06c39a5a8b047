"""scripts/compare.py on benchmarks: networks as arms, Holm's correction, the images that differ most, and every file format."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from latex_syntax import check_latex
from scipy import stats

from irformer.commands.compare import compare_runs
from irformer.evaluation.results import Record, SetResult, write_records
from irformer.metrics import METRICS
from irformer.runs.comparison import compare
from irformer.runs.differences import paired_difference, with_holm_correction
from irformer.runs.intervals import mean_difference

TRAITS = {name: METRICS[name].traits for name in ("psnr_y", "ssim_y")}


def record(label, psnr, sha=None, task="sr_x2", test_set="Set5", departures=None, checkpoint=None, padding="network", **changes):
    per_image = {f"i{number}": {"psnr_y": value, "ssim_y": value / 40} for number, value in enumerate(psnr)}
    sets = {test_set: SetResult(test_set, "files", per_image=per_image, **changes)}
    protocol = {"metrics": list(TRAITS), "border": 2, "padding": padding}
    return Record(checkpoint or label, label, task, task, protocol, departures or {}, TRAITS, sets, {"sha256": sha, "model_overrides": {}})


@pytest.fixture
def level():
    return np.random.default_rng(0).uniform(25, 35, 30)


def test_networks_of_benchmarks_are_compared_by_image(tmp_path, level, attempts):
    noise = np.random.default_rng(1).normal(0.2, 0.3, 30)
    write_records(tmp_path / "a" / "results.json", [record("ours", level + noise, "1"), record("bicubic", level - 3)])
    write_records(tmp_path / "b" / "results.json", [record("theirs", level, "2"), record("bicubic", level - 3)])
    comparison = compare([tmp_path / "a", tmp_path / "b"], reference="theirs")
    (part,) = comparison.sets
    assert [arm.label for arm in part.arms] == ["ours", "bicubic", "theirs"], "the same baseline in both is one arm"
    difference = part.differences[0]
    assert (difference.a, difference.b, difference.covers_seeds) == ("ours", "theirs", False)
    assert difference.mean == pytest.approx(noise.mean())
    own = stats.bootstrap((noise,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5)).confidence_interval
    assert difference.interval == pytest.approx((own.low, own.high), abs=0.02)
    assert difference.verdict.startswith("ours is better")
    order = sorted(range(30), key=lambda i: -abs(noise[i]))[:10]
    assert [found.image for found in part.most_different[0]] == [f"i{i}" for i in order]
    assert part.most_different[0][0].difference == pytest.approx(noise[order[0]])
    assert comparison.notes == []
    attempts.handled("compare")


def test_a_difference_below_its_noise_is_said_to_be_so(tmp_path, level):
    noise = np.random.default_rng(2).normal(0, 0.3, 30)
    write_records(tmp_path / "results.json", [record("a", level + noise - noise.mean() + 0.01, "1"), record("b", level, "2")])
    (difference,) = compare([tmp_path]).sets[0].differences
    assert difference.verdict.startswith("within the noise: the interval contains 0")
    assert difference.p_value == pytest.approx(stats.ttest_1samp(noise - noise.mean() + 0.01, 0).pvalue, abs=0.02)


def test_the_p_value_belongs_to_the_interval():
    """It is below 0.05 exactly where the 95 % interval excludes 0, and that of Student's t where this is the wider one."""
    rng = np.random.default_rng(4)
    for shift in np.linspace(-1, 1, 21):
        values = rng.normal(shift, 1, (1, 6))
        found = mean_difference([values], resamples=400)
        assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
        assert found.p_value >= stats.ttest_1samp(values[0], 0).pvalue - 1e-9
    seeds = np.array([0.1, 0.3, 0.2])
    paired = mean_difference([np.repeat(seeds[:, None], 20, axis=1)])
    assert paired.p_value == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue)
    assert mean_difference([np.zeros((1, 5))]).p_value == 1


def test_holm_s_correction_by_hand():
    """p-values of 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    values = np.random.default_rng(3).normal(0, 1, 20)
    one = paired_difference("a", "b", {0: values}, {0: np.zeros(20)})
    given = [one.__class__(**{**vars(one), "p_value": p, "interval": (0.1, 0.2)}) for p in (0.01, 0.04, 0.03)]
    found = with_holm_correction(given)
    assert [difference.adjusted_p_value for difference in found] == pytest.approx([0.03, 0.06, 0.06])
    assert [difference.within_noise for difference in found] == [False, True, True]
    assert found[1].verdict.startswith("within the noise after Holm's correction for 3 differences (p = 0.06)")
    assert with_holm_correction(given[:1]) == given[:1], "two arms need no correction"


def test_beyond_two_arms_the_p_values_are_corrected(tmp_path, level):
    rng = np.random.default_rng(8)
    records = [record(name, level + rng.normal(shift, 0.3, 30), name) for name, shift in (("a", 0.0), ("b", 0.12), ("c", 0.5))]
    write_records(tmp_path / "results.json", records)
    comparison = compare([tmp_path])
    differences = comparison.sets[0].differences
    assert len(differences) == 3
    assert all(difference.adjusted_p_value >= difference.p_value for difference in differences)
    assert comparison.tables()[1].notes == ["p: after Holm's correction for 3 differences."]
    write_records(tmp_path / "results.json", records[:2])
    assert compare([tmp_path]).sets[0].differences[0].adjusted_p_value is None


def test_departures_tasks_and_nan(tmp_path, level):
    records = [
        record("a", level, "1"),
        record("a", level + 0.1, "1", departures={"ensemble": True}),
        record("a", level + 0.2, "1", departures={"tile": 64, "overlap": 8}),
        record("a", level - 5, "1", task="sr_x3"),
        record("b", level[:-1], "2", non_finite={"i29": 12}),
    ]
    write_records(tmp_path / "results.json", records)
    comparison = compare([tmp_path], reference="a")
    assert [part.name for part in comparison.sets] == ["Set5 (sr_x2)", "Set5 (sr_x3)"]
    assert [arm.label for arm in comparison.sets[0].arms] == ["a", "a, self-ensemble x8", "a, tile 64, overlap 8"]
    assert comparison.notes == ["b, Set5 (sr_x2): not compared, because 1 of 30 images have NaN or infinite values."]
    assert [difference.mean for difference in comparison.sets[0].differences] == pytest.approx([0.1, 0.2])


def test_other_padding_is_another_arm(tmp_path, level):
    """But not for a baseline, which needs no padding."""
    for number, padding in enumerate(("network", "reflect_min")):
        records = [record("a", level + number, "1", padding=padding), record("bicubic", level - 3, padding=padding)]
        write_records(tmp_path / padding / "results.json", records)
    (part,) = compare([tmp_path]).sets
    means = {arm.label: arm.mean - level.mean() for arm in part.arms}
    assert means == pytest.approx({"a": 0, "a, padding reflect_min": 1, "bicubic": -3})


def test_runs_that_differ_in_the_seed_are_one_arm(tmp_path, monkeypatch, level):
    """Then the interval covers seeds and images jointly."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(6)
    records = []
    for norm, gain in (("ln", 0.0), ("iln", 0.5)):
        for seed in (0, 1, 2):
            folder = tmp_path / f"runs/{norm}{seed}"
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(f"name: {norm}{seed}\nseed: {seed}\nnorm:\n  name: {norm}\n")
            values = level + gain + rng.normal(0, 0.05) + rng.normal(0, 0.1, 30)
            records.append(record(f"net {norm}{seed}", values, f"{norm}{seed}", checkpoint=f"runs/{norm}{seed}"))
    write_records(tmp_path / "bench" / "results.json", [*records, record("bicubic", level - 3)])
    part = compare([tmp_path / "bench"]).sets[0]
    assert [(arm.label, list(arm.seeds)) for arm in part.arms] == [("norm=ln", [0, 1, 2]), ("norm=iln", [0, 1, 2]), ("bicubic", [-1])]
    seeded = part.differences[0]
    assert (seeded.a, seeded.b, seeded.covers_seeds, seeded.seeds) == ("norm=ln", "norm=iln", True, [0, 1, 2])
    assert part.differences[1].covers_seeds is False
    assert part.differences[1].mean == pytest.approx(part.arms[0].mean - part.arms[2].mean)


def test_every_format_has_the_differences(tmp_path, monkeypatch, capsys, level):
    noise = np.random.default_rng(1).normal(0.2, 0.1, 30)
    write_records(tmp_path / "b" / "results.json", [record("ours_50 %", level + noise, "1"), record("theirs", level, "2")])
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "b"), "--out", str(tmp_path / "out")])
    compare_runs()
    printed = " ".join(capsys.readouterr().out.split())
    assert "images with the largest differences, ours_50 % - theirs" in printed
    out = tmp_path / "out"
    assert check_latex((out / "compare.tex").read_text()) == 3 + 2 + 11
    (row,) = csv.DictReader(io.StringIO((out / "compare.csv").read_text()))
    assert float(row["difference"]) == pytest.approx(noise.mean(), abs=1e-12)
    assert (row["a"], row["b"], row["images"], row["adjusted_p_value"]) == ("ours_50 %", "theirs", "30", "")
    images = list(csv.DictReader(io.StringIO((out / "images.csv").read_text())))
    found = json.loads((out / "compare.json").read_text())["test_sets"]["Set5"]["differences"][0]["most_different"]
    assert [image["image"] for image in images] == [image["image"] for image in found]
    assert len(images) == 10
    assert f"| {images[0]['image']} |" in (out / "compare.md").read_text()
    assert "seed" not in (out / "compare.md").read_text().partition("\n\n")[2].partition("\n")[0], "benchmarks have none"


def test_a_broken_benchmark_is_named(tmp_path, monkeypatch, capsys, attempts):
    (tmp_path / "results.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path)])
    with pytest.raises(SystemExit):
        compare_runs()
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'results.json'}: cannot be read (Expecting property name")
    assert error.count("\n") == 1
    attempts.refused("compare")
