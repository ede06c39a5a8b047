"""Verdicts and effects follow from the numbers by the stated rule."""

import json
import math
import re

import numpy as np
import pytest
from synthetic import noise, norm_of, write_records

from irformer.experiments.budgets import CPU
from irformer.experiments.checks import Check, reason_of, verdict_of
from irformer.experiments.control import EFFECTS, all_corner_effects, doubling_step, effects, onset
from irformer.experiments.laboratory import EXPERIMENTS, state
from irformer.experiments.measured import LOG_MAGNITUDE
from irformer.experiments.planning import plan_runs
from irformer.experiments.seed_statistics import Estimate, contrast, deviation_ratio, difference_of, mean_of


def check(low: float, high: float) -> Check:
    return Check("it grows", Estimate((low + high) / 2, low, high, 3), holds=1, contradicted=0, unit="dB")


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(1.1, 2), (3, 4)], "agrees"),
        ([(1.1, 2), (0.9, 4)], "not visible at this budget"),
        ([(1.1, 2), (-2, -0.1)], "disagrees"),
        ([(-math.inf, math.inf)], "not visible at this budget"),  # a single seed decides nothing
    ],
)
def test_the_verdict_follows_from_intervals(intervals, verdict):
    assert verdict_of([check(*interval) for interval in intervals]) == verdict


def test_the_reason_names_the_conditions_that_decide():
    checks = [check(1.1, 2), Check("it shrinks", Estimate(-1, -2, -0.1, 3), 1, 0, "dB")]
    assert reason_of(checks) == "contradicted: it shrinks: -1.00 [-2.00, -0.10] dB."


def test_an_interval_of_few_seeds_is_at_least_student_t():
    found = mean_of([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom, deviation 1
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert not mean_of([1.0]).bounded


def test_intervals_cover_the_mean_in_most_samples():
    random = np.random.default_rng(0)
    samples = [mean_of(random.normal(size=3).tolist()) for _ in range(400)]
    assert np.mean([found.low <= 0 <= found.high for found in samples]) >= 0.93


def test_common_seeds_are_paired():
    first = {0: 1.0, 1: 11.0, 2: 101.0}
    assert difference_of(first, {seed: value - 1 for seed, value in first.items()}).text() == "1.00 [1.00, 1.00]"
    unpaired = difference_of(first, {3: 0.0, 4: 10.0, 5: 100.0})
    assert unpaired.low < 0 < unpaired.high


def test_a_contrast_uses_the_seeds_that_all_arms_have():
    found = contrast([(1, {0: 3.0, 1: 4.0, 2: 99.0}), (1, {0: 5.0, 1: 6.0}), (-2, {0: 1.0, 1: 2.0})])
    assert (found.text(), found.count) == ("3.00 [3.00, 3.00]", 2)


def test_a_ratio_of_deviations_has_the_interval_of_f():
    found = deviation_ratio([0.0, 3.0, 6.0], [0.0, 1.0, 2.0])
    assert found.mean == pytest.approx(3)
    assert found.low < 1 < found.high  # F(2, 2) needs a ratio of 6.2
    assert deviation_ratio([0.0, 30.0, 60.0], [0.0, 1.0, 2.0]).low > 1


def test_an_effect_begins_where_its_interval_stays_clear_of_zero():
    clear, unclear = Estimate(1, 0.5, 1.5, 3), Estimate(1, -0.5, 1.5, 3)
    assert onset([10, 20, 30, 40], [clear, unclear, clear, clear]) == 30
    assert onset([10, 20], [clear, unclear]) is None
    assert onset([10, 20], [clear, clear]) == 10


@pytest.fixture
def control(tmp_path):
    """A function that measures the control with planted effects: factors of the magnitude for LN blocks and for LN ends."""

    def measured(blocks: float, ends: float):
        def magnitude(run, step):
            norm = norm_of(run)
            grown = (blocks if norm.name == "ln" else 1) * (ends if norm.ends == "ln" else 1)
            return (0.05 if step < run.steps / 2 else 0.05 * grown) * 10 ** noise(run, 0.02)

        write_records([EXPERIMENTS["control"]], CPU, tmp_path, magnitude)
        return state(EXPERIMENTS["control"], CPU, tmp_path).finding

    return measured


def test_planted_effects_are_found_and_the_ends_are_blamed(control):
    finding = control(blocks=2.0, ends=1000.0)
    last = effects(finding.measured, LOG_MAGNITUDE, 6000)
    assert last[EFFECTS[0]].mean == pytest.approx(math.log10(2), abs=0.05)
    assert last[EFFECTS[1]].mean == pytest.approx(3, abs=0.05)
    assert last[EFFECTS[2]].low < 0 < last[EFFECTS[2]].high
    everywhere = all_corner_effects(finding.measured, LOG_MAGNITUDE, 1500)
    assert everywhere["blocks: LN - i-LN"].mean < 0.35  # the long arms have not grown by then
    assert finding.verdict == "disagrees"
    remarks = EXPERIMENTS["control"].remarks(finding.measured)
    assert remarks[1].startswith("The final norm (LN instead of affine) explains a factor of")
    assert "its interval excludes 0 from step 3,000 on" in remarks[1]
    assert "90 % belong to the final norm" in remarks[2] or "91 % belong to the final norm" in remarks[2]


def test_growth_is_dated_by_its_doubling(control):
    records = control(blocks=3.0, ends=1.0).measured.records
    assert doubling_step(records["ln-affine-standardized"][0]) == 3000
    assert math.isinf(doubling_step(records["iln-affine-standardized"][0]))


def test_the_control_agrees_where_the_blocks_are_the_cause(control):
    assert control(blocks=1000.0, ends=2.0).verdict == "agrees"


def test_the_control_sees_nothing_where_nothing_grows(control):
    assert control(blocks=1.0, ends=1.0).verdict == "not visible at this budget"


def test_figure7_tells_both_halves_apart(tmp_path):
    def magnitude(run, step):
        name = norm_of(run).name
        return (20 if name in ("ln", "iln_norescale") else 1) * (1.5 if name in ("ln", "ln_rescale") else 1) * 10 ** noise(run, 0.001)

    write_records([EXPERIMENTS["figure7"]], CPU, tmp_path, magnitude)
    (remark,) = EXPERIMENTS["figure7"].remarks(state(EXPERIMENTS["figure7"], CPU, tmp_path).finding.measured)
    factors = [float(factor) for factor in re.findall(r"by ([\d.]+) \(", remark)]
    assert factors == pytest.approx([20, 1.5], rel=0.02)


def test_figure2_sets_networks_without_a_final_norm_apart(tmp_path):
    def magnitude(run, step):
        growth = 1e6 if "model=drct_tiny" in run.overrides else 1.0 if "model=restormer_tiny" in run.overrides else 1e3
        return (growth if norm_of(run).name == "ln" else 1.0) * 10 ** noise(run, 0.001)

    write_records([EXPERIMENTS["figure2"]], CPU, tmp_path, magnitude)
    (remark,) = EXPERIMENTS["figure2"].remarks(state(EXPERIMENTS["figure2"], CPU, tmp_path).finding.measured)
    assert "differs from that of i-LN by +3.00 to +6.00 in log10" in remark
    assert re.search(r"Without a final norm \(restormer_tiny\), it differs by [+-]0\.00\.", remark)


def test_table4_tells_a_trained_overflow_from_a_scaled_one(tmp_path):
    experiment = EXPERIMENTS["table4"]
    write_records([experiment], CPU, tmp_path)
    wide = next(arm for arm in experiment.arms(CPU) if arm.key == "wide-ln")
    for run in plan_runs([wide], CPU):
        file = tmp_path / "data" / "cpu" / run.name / "results.json"
        results = json.loads(file.read_text())
        precision = results["analyses"]["precision"]
        precision["fp16"] |= {"psnr": 7.5 + noise(run, 0.01), "non_finite": 64 if run.seed else 0}
        precision["scaled"]["stream"] = 1e6 + 1e5 * run.seed
        file.write_text(json.dumps(results))
    finding = state(experiment, CPU, tmp_path).finding
    assert [check.outcome for check in finding.checks] == ["undecided", "holds", "holds", "holds"]
    assert finding.checks[2].statement == "At twice the width, in fp16, LayerNorm loses at least 1 dB more than i-LN"
    remarks = dict(zip(finding.measured.arms, experiment.remarks(finding.measured), strict=True))
    assert re.search(r"1 of 2 trained networks fail in float16, .* reach 1\.1e\+06; they restore with 7\.\d\d dB", remarks["wide-ln"])
    assert all("not a trained network" in remarks[key] for key in ("ln", "iln", "wide-iln"))
