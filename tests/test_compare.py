"""Comparison of arms: statistics checked against independent computations, verdicts, and excluded runs and images."""

import json
import math
import re
import statistics
import sys

import numpy as np
import pytest
from scipy import stats

from irformer.commands.compare import compare_runs
from irformer.errors import UserError
from irformer.evaluation.results import read_results, write_results
from irformer.reporting.tables import best_numbers
from irformer.runs.arms import arm_labels
from irformer.runs.comparison import compare, paired_difference, sweep_table
from irformer.runs.intervals import _bootstrap, difference_interval

PROTOCOL = {"lr": "matlab_uint8", "border": 2, "metrics": ["psnr_y", "ssim_y"]}


def write_run(folder, norm: str, seed: int, psnr: dict[str, float], test_set: str = "Set5", **further) -> None:
    """Write the files of a finished run: config.yaml with its references, and results.json."""
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


def test_interval_of_one_seed_is_the_wider_of_bootstrap_and_t():
    values = np.random.default_rng(7).normal(0.3, 1.0, 60)
    bootstrap = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=100_000, rng=np.random.default_rng(1))
    student = stats.ttest_1samp(values, 0).confidence_interval()
    low, high = difference_interval([values[None]])
    expected = (min(student.low, bootstrap.confidence_interval.low), max(student.high, bootstrap.confidence_interval.high))
    assert (low, high) == pytest.approx(expected, abs=0.01)  # 10,000 resamples: a random error of about 0.003
    assert difference_interval([values[None]]) == (low, high), "the same numbers each time"


def test_interval_covers_seeds_by_t():
    """If all images agree, the interval is the t interval over the seeds, paired or Welch's."""
    seeds = np.array([0.1, 0.3, 0.2])
    paired = difference_interval([np.repeat(seeds[:, None], 20, axis=1)])
    assert paired == pytest.approx(tuple(stats.ttest_1samp(seeds, 0).confidence_interval()))
    other = np.array([0.0, 0.05])
    welch = difference_interval([np.repeat(arm[:, None], 20, axis=1) for arm in (seeds, other)])
    assert welch == pytest.approx(tuple(stats.ttest_ind(seeds, other, equal_var=False).confidence_interval()))


def test_interval_resamples_seeds_and_images_together():
    """With many seeds and images, the bootstrap's variance is the sum of the variances of both means."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (40, 1)) + rng.normal(0, 1, (1, 40))
    low, high, _ = _bootstrap([values], 10_000)
    deviation = math.hypot(values.mean(1).std(), values.mean(0).std()) / math.sqrt(40)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.04)


@pytest.mark.parametrize(("seeds", "images"), [(2, 5), (3, 5), (3, 20), (5, 20)])
@pytest.mark.parametrize("share", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=["seeds", "images", "both"])
def test_without_a_difference_about_one_interval_in_twenty_excludes_0(seeds, images, share):
    """In 400 sweeps without a difference, at most 20 exclusions are expected; 33 have a probability of 0.4 %."""
    rng = np.random.default_rng(11)
    excluded = 0
    for _ in range(400):
        by_seed = rng.normal(0, 1 / math.sqrt(images / seeds), (seeds, 1)) * share[0]
        low, high = difference_interval([by_seed + share[1] * rng.normal(0, 1, (1, images))], resamples=200)
        excluded += not low <= 0 <= high
    assert excluded <= 32


def test_two_seeds_that_scatter_decide_nothing(attempts):
    """All 20 images agree within 0.01 dB, and the two seeds differ by 0.15 and 0.25 dB: a t-test over these seeds has p = 0.16."""
    rng = np.random.default_rng(0)
    b = {seed: rng.uniform(25, 35, 20) for seed in (0, 1)}
    a = {seed: b[seed] + gain + rng.normal(0, 0.01, 20) for seed, gain in ((0, 0.15), (1, 0.25))}
    assert stats.ttest_rel([row.mean() for row in a.values()], [row.mean() for row in b.values()]).pvalue == pytest.approx(0.16, abs=0.01)
    found = paired_difference("a", "b", a, b)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.verdict == "within the noise: the interval contains 0"
    assert found.as_dict()["within_noise"] is True
    assert found.as_dict()["covers_seeds"] is True
    attempts.handled("compare")


def test_paired_difference_by_hand():
    """Check every statistic of three images and two seeds against the standard library."""
    a = {0: np.array([30.0, 31.0, 33.0]), 1: np.array([30.2, 31.4, 33.0])}
    b = {0: np.array([29.9, 30.8, 32.7]), 1: np.array([29.7, 31.1, 32.6])}
    found = paired_difference("a", "b", a, b)
    by_seed = [statistics.fmean((0.1, 0.2, 0.3)), statistics.fmean((0.5, 0.3, 0.4))]
    by_image = [statistics.fmean((0.1, 0.5)), statistics.fmean((0.2, 0.3)), statistics.fmean((0.3, 0.4))]
    assert found.mean == pytest.approx(statistics.fmean(by_seed))
    assert found.seed_deviation == pytest.approx(statistics.stdev(by_seed))
    # Student's t for 95 % is 12.706 with one degree of freedom and 4.303 with two.
    half = math.hypot(12.706 * statistics.stdev(by_seed) / math.sqrt(2), 4.303 * statistics.stdev(by_image) / math.sqrt(3))
    assert found.interval == pytest.approx((0.3 - half, 0.3 + half), abs=1e-3)
    assert found.verdict == "within the noise: the interval contains 0"
    wide = {seed: row + 2 for seed, row in a.items()}
    assert paired_difference("a", "b", wide, b).verdict == "a is better"
    assert paired_difference("b", "a", b, wide).verdict == "a is better"


def test_pairing_takes_out_what_images_and_seeds_share():
    """Variation of 10 dB over images and 1 dB over seeds does not hide a constant difference of 0.05 dB if the seeds are paired."""
    level = np.linspace(25, 35, 20)
    a = {seed: level + seed + 0.05 for seed in (0, 1, 2)}
    paired = paired_difference("a", "b", a, {seed: level + seed for seed in (0, 1, 2)})
    assert paired.interval == pytest.approx((0.05, 0.05))
    assert paired.seed_deviation == pytest.approx(0, abs=1e-12)
    assert not paired.within_noise
    other = paired_difference("a", "b", a, {seed: level + seed - 3 for seed in (3, 4, 5)})
    assert other.seeds == []
    assert other.mean == pytest.approx(0.05)
    assert other.seed_deviation == pytest.approx(math.hypot(1, 1))
    assert other.verdict == "within the noise: the interval contains 0"


def test_one_seed_and_one_image_leave_something_open():
    values = np.array([0.4, -0.5, 0.6, -0.3, 0.1])
    zero = np.zeros(5)
    only_images = "; the interval covers only images, because an arm has a single seed"
    assert paired_difference("a", "b", {0: values}, {0: zero}).verdict == f"within the noise: the interval contains 0{only_images}"
    assert paired_difference("a", "b", {0: zero + 1}, {0: zero}).verdict == f"a is better{only_images}"
    assert paired_difference("a", "b", {0: zero + 1}, {1: zero, 2: zero}).verdict == f"a is better{only_images}"
    assert paired_difference("a", "b", {0: zero[:1] + 1}, {0: zero[:1]}).verdict == "undecided: a single image has no interval"


def test_arms_of_folders(tmp_path):
    """Means and deviations over seeds are exact, machine keys and names do not separate arms, and unfinished runs are named."""
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
    assert comparison.notes == ["Skipped, unfinished: going."]
    assert compare([tmp_path], reference="ln").sets[0].differences[0].a == "norm=iln"
    assert compare([tmp_path], metric="ssim_y").sets[0].differences[0].mean == pytest.approx(-0.6 / 40)

    table = sweep_table(tmp_path)
    assert table is not None
    arm = next(row for row in table.texts if row[0] == "norm=ln")
    assert arm[1:] == ["mean of seeds 0, 1, 2", "", "32.53 ± 0.265 / 0.8133 ± 0.00661"]
    assert [row[1] for row in table.texts] == [
        "mean of seeds 0, 1, 2",
        "ln0",
        "ln1",
        "ln2",
        "mean of seeds 0, 1, 2",
        "iln0",
        "iln1",
        "iln2",
    ]


def test_equal_images_and_other_images_are_left_out_and_named(tmp_path):
    write_run(tmp_path / "ln", "ln", 0, images(30, 31, 32, 40))
    write_run(tmp_path / "iln", "iln", 0, images(30.1, float("inf"), 32.2))
    comparison = compare([tmp_path])
    part = comparison.sets[0]
    assert part.images == 2
    assert part.differences[0].mean == pytest.approx(0.15)
    assert any("Only 3 of 4 images are compared, those in the results of all runs" in note for note in part.notes)
    assert any("psnr_y is infinite or undefined (" in note and "i1" in note for note in part.notes)
    assert sweep_table(tmp_path) is not None  # its means are infinite, as in the benchmark


def test_only_arms_that_differ_in_one_key(tmp_path):
    for lr in (1e-4, 2e-4):
        for norm in ("ln", "iln"):
            write_run(tmp_path / f"{norm}{lr}", norm, 0, images(30, 31), lr=lr)
    assert len(compare([tmp_path]).sets[0].differences) == 6
    pairs = {(d.a, d.b) for d in compare([tmp_path], by="norm").sets[0].differences}
    assert pairs == {(f"optim.lr={lr} norm=iln", f"optim.lr={lr} norm=ln") for lr in (0.0001, 0.0002)}
    assert {d.verdict.partition(";")[0] for d in compare([tmp_path], by="norm").sets[0].differences} == {
        "within the noise: the interval contains 0"
    }


def test_labels_contain_only_what_distinguishes_an_arm():
    ln = {"norm.name": "ln", "norm.block": "LayerNorm", "norm.ends": "same", "optim.lr": 1e-4}
    iln = {"norm.name": "iln", "norm.block": "ILN", "norm.ends": "affine", "optim.lr": 1e-4}
    assert arm_labels([ln, iln]) == ["norm=ln", "norm=iln"]
    control = {**ln, "norm.ends": "affine"}
    assert arm_labels([ln, control, iln]) == ["norm=ln norm.ends=same", "norm=ln norm.ends=affine", "norm=iln"]
    assert arm_labels([ln, {**ln, "optim.lr": 2e-4}]) == ["optim.lr=0.0001", "optim.lr=0.0002"]


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ("1", 1, ['x.y="1"', "x.y=1.0"]),
        (True, "True", ["x.y=true", 'x.y="True"']),
        (True, 1, ["x.y=True", "x.y=1"]),
        ("a b", "ab", ['x.y="a b"', 'x.y="ab"']),
        (None, "None", ["x.y=null", 'x.y="None"']),
        ([1, 2], "[1,2]", ["x.y=[1.0, 2.0]", 'x.y="[1,2]"']),
    ],
    ids=str,
)
def test_two_arms_never_share_a_label(attempts, first, second, labels):
    assert arm_labels([{"x.y": first}, {"x.y": second}]) == labels
    attempts.handled("compare")


def test_equal_numbers_are_one_arm(tmp_path, attempts):
    write_run(tmp_path / "a", "ln", 0, images(30, 31), lr=1)
    write_run(tmp_path / "b", "ln", 1, images(30, 31), lr=1.0)
    assert [list(arm.seeds) for arm in compare([tmp_path]).sets[0].arms] == [[0, 1]]
    attempts.handled("compare")


def break_results(change):
    """Return a function that changes the record of a run."""

    def write(folder):
        record = json.loads((folder / "results.json").read_text())
        change(record)
        (folder / "results.json").write_text(json.dumps(record))

    return write


BROKEN = {
    "truncated": (lambda folder: (folder / "results.json").write_text((folder / "results.json").read_text()[:200]), "results.json: cannot"),
    "empty": (lambda folder: (folder / "results.json").write_text(""), "results.json: cannot be read (Expecting value"),
    "a list": (lambda folder: (folder / "results.json").write_text("[]"), "results.json: cannot be read (Input should be"),
    "not UTF-8": (lambda folder: (folder / "results.json").write_bytes(b"\xff\xfe{"), "results.json: cannot be read ('utf-8' codec"),
    "nested": (lambda folder: (folder / "results.json").write_text("[" * 100_000), "results.json: cannot be read ("),
    "no task": (break_results(lambda record: record.pop("task")), "results.json: cannot be read (task: Field required)"),
    "no metrics": (
        break_results(lambda record: record["protocol"].pop("metrics")),
        "results.json: cannot be read (protocol.metrics: Field required)",
    ),
    "no images": (
        break_results(lambda record: record["test_sets"]["Set5"].update(per_image={})),
        "results.json: cannot be read (test_sets.Set5.per_image: Dictionary should have at least 1 item",
    ),
    "NaN": (
        break_results(lambda record: record["test_sets"]["Set5"]["per_image"]["i1"].update(psnr_y=math.nan)),
        "results.json: cannot be read (test_sets.Set5.per_image.i1.psnr_y: NaN, expected a number)",
    ),
    "text": (
        break_results(lambda record: record["test_sets"]["Set5"]["metrics"].update(psnr_y="high")),
        "results.json: cannot be read (test_sets.Set5.metrics.psnr_y: Input should be a valid number",
    ),
    "a metric missing": (
        break_results(lambda record: record["test_sets"]["Set5"]["per_image"]["i0"].pop("ssim_y")),
        "results.json: cannot be read (test_sets.Set5.per_image.i0 has no ssim_y)",
    ),
    "no YAML": (lambda folder: (folder / "config.yaml").write_text("seed: [1"), "config.yaml: cannot be read ("),
    "binary YAML": (lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00"), "config.yaml: cannot be read ("),
    "no seed": (lambda folder: (folder / "config.yaml").write_text("norm: {name: ln}"), "config.yaml: seed is None, expected a whole"),
    "seeds": (lambda folder: (folder / "config.yaml").write_text("seed: [1, 2]"), "config.yaml: seed is [1, 2], expected a whole"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_run_is_named_and_the_others_are_compared(tmp_path, attempts, case):
    for norm in ("ln", "iln"):
        for seed in (0, 1):
            write_run(tmp_path / f"{norm}{seed}", norm, seed, images(30 + seed, 31))
    write_run(tmp_path / "broken", "ln", 2, images(30, 31))
    do, line = BROKEN[case]
    do(tmp_path / "broken")
    comparison = compare([tmp_path])
    assert {arm.label: list(arm.seeds) for arm in comparison.sets[0].arms} == {"norm=iln": [0, 1], "norm=ln": [0, 1]}
    (note,) = comparison.notes
    assert note.startswith(f"Skipped: {tmp_path / 'broken' / line}"), note
    assert "\n" not in note
    assert sweep_table(tmp_path).notes[0] == note
    attempts.refused("compare")


def test_infinite_metrics_are_strict_json_and_come_back(tmp_path, attempts):
    """The infinite PSNR of equal images is read from files of this version and of earlier versions."""
    psnr = {"a": {"psnr": math.inf}, "b": {"psnr": 30.5}}
    record = {"task": "x", "protocol": {"metrics": ["psnr"]}, "test_sets": {"s": {"metrics": {"psnr": math.inf}, "per_image": psnr}}}
    write_results(tmp_path / "new.json", record)
    (tmp_path / "old.json").write_text(json.dumps(record))

    def refuse(word):
        raise ValueError(word)

    json.loads((tmp_path / "new.json").read_text(), parse_constant=refuse)
    assert read_results(tmp_path / "new.json") == read_results(tmp_path / "old.json") == record
    attempts.handled("benchmark")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere: no such folder; expected the folder of a sweep, a run or a benchmark"),
        (["empty"], "empty: no finished runs; expected folders with config.yaml and results.json"),
        (["a", "--metric", "psnr_b"], "--metric psnr_b: not measured by these runs; known: psnr_y, ssim_y"),
        (["a", "--test-set", "Set14"], "--test-set Set14: not measured by these runs; known: Set5"),
        (["a", "--by", "model"], "--by model: no two arms differ only in model; arms: norm=iln, norm=ln"),
        (["a", "--reference", "rms"], "--reference rms: no arm matches; arms: norm=iln, norm=ln"),
        (["a", "b"], "a/ln and b/ln have the same configuration and seed 0: give folders that contain only one of them"),
        (["broken"], "broken/results.json: cannot be read"),
    ],
    ids=str,
)
def test_a_user_error_gets_one_line(tmp_path, monkeypatch, capsys, attempts, words, line):
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
    attempts.refused("compare")


def test_no_finite_image_is_reported(tmp_path):
    write_run(tmp_path / "ln", "ln", 0, images(float("inf")))
    with pytest.raises(UserError, match="Set5: no image has a finite psnr_y in all runs"):
        compare([tmp_path])


LOWER = {"psnr_y": {"higher_is_better": False, "digits": 1, "unit": ""}}  # as recorded for a metric of another package


def test_the_verdict_follows_the_recorded_direction(tmp_path):
    """The metric's code is not needed: direction and decimals come from the record."""
    for seed in (0, 1):
        write_run(tmp_path / f"ln{seed}", "ln", seed, images(3.0 + seed, 3.2, 3.4), metrics=LOWER)
        write_run(tmp_path / f"iln{seed}", "iln", seed, images(2.5 + seed, 2.75, 2.875), metrics=LOWER)
    comparison = compare([tmp_path])
    (difference,) = comparison.sets[0].differences
    assert (difference.a, difference.mean > 0) == ("norm=iln", False)
    assert difference.verdict == "norm=iln is better"
    assert comparison.notes == []
    means, differences = comparison.tables()
    assert means.texts[0][1] == "2.88"
    assert differences.texts[0][1] == "-0.49"
    assert best_numbers(means) == {(0, 1, 0)}
    comparison.write(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["higher_is_better"] is record["test_sets"]["Set5"]["differences"][0]["higher_is_better"] is False
    table = sweep_table(tmp_path)
    assert table is not None
    assert table.texts[0][3] == "2.9 ± 0.24 / 0.0719 ± 0.00589"
    assert {row for row, _, part in best_numbers(table) if part == 0} == {1}, "the lowest mean, that of run iln0"


def test_an_unknown_metric_without_a_recorded_direction_is_taken_as_higher_is_better(tmp_path):
    for norm, value in (("ln", 1.0), ("iln", 2.0)):
        write_run(tmp_path / norm, norm, 0, images(30, 31))
        file = tmp_path / norm / "results.json"
        file.write_text(file.read_text().replace("ssim_y", "edge"))
        record = json.loads(file.read_text())
        for row in record["test_sets"]["Set5"]["per_image"].values():
            row["edge"] = value
        file.write_text(json.dumps(record))
    comparison = compare([tmp_path], metric="edge")
    assert comparison.sets[0].differences[0].verdict.startswith("norm=iln is better; ")
    assert comparison.notes == ["The runs do not record whether a higher or a lower edge is better; higher is assumed to be better."]
    assert compare([tmp_path], metric="psnr_y").notes == []


def test_runs_with_different_directions_are_not_compared(tmp_path):
    write_run(tmp_path / "ln", "ln", 0, images(30, 31))
    write_run(tmp_path / "iln", "iln", 0, images(30, 31), metrics=LOWER)
    with pytest.raises(UserError) as caught:
        compare([tmp_path])
    assert str(caught.value) == (
        f"psnr_y: higher is better in {tmp_path / 'ln'} and lower is better in {tmp_path / 'iln'}; expected runs that agree"
    )


def test_files_hold_what_is_printed(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        write_run(tmp_path / f"ln{seed}", "ln", seed, images(30 + seed, 32, 34))
        write_run(tmp_path / f"iln{seed}", "iln", seed, images(30.5 + seed, 32.25, 34.375))
        (tmp_path / f"iln{seed}" / "metrics.csv").write_text(f"step,name,value\n9,train/loss,0.{seed + 1}\n")
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path), "--out", str(tmp_path / "out")])
    compare_runs()
    printed = capsys.readouterr().out
    markdown = (tmp_path / "out" / "compare.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    for cell in ("norm=iln - norm=ln", "+0.375", "[+0.064, +0.686]", "norm=iln is better", "32.542", "0.236"):
        assert cell in printed, cell
        assert cell in markdown, cell
        assert cell in page, cell
    assert '<li class="better"><span class="forest-label">norm=iln - norm=ln</span>' in page
    (chart,) = re.findall(r'class="chart-data">(.*?)</script>', page)
    assert [(curve["name"], curve["steps"], curve["values"]) for curve in json.loads(chart)["series"]] == [
        ("norm=iln, seed 0", [10], [0.1]),
        ("norm=iln, seed 1", [10], [0.2]),
    ]
    record = json.loads((tmp_path / "out" / "compare.json").read_text())["test_sets"]["Set5"]
    difference = record["differences"][0]
    assert difference | {"mean": 0.375, "seeds": [0, 1], "covers_seeds": True, "within_noise": False} == difference
    assert difference["interval"] == pytest.approx([0.0645, 0.6855], abs=1e-4)  # Student's t, two degrees of freedom
    assert record["arms"]["norm=iln"]["deviation"] == pytest.approx(1 / 3 / math.sqrt(2))
