"""The paper's claims about trained weights: figures 8 and 9, and low precision in table 4 and figure 10."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irformer.dynamics.parameters import rank_correlation
from irformer.experiments.analyses import EVALUATED
from irformer.experiments.arm_records import Record
from irformer.experiments.budgets import Budget
from irformer.experiments.checks import Check
from irformer.experiments.description import Experiment
from irformer.experiments.dynamics_claims import official_pair
from irformer.experiments.lab_arms import Arm
from irformer.experiments.measured import LOG_MAGNITUDE, MAGNITUDE, QUALITY, Measured, Quantity
from irformer.experiments.result_figures import levels_figure, scatter_figure, tables_figure
from irformer.experiments.seed_statistics import Estimate, mean_of
from irformer.experiments.setting_arms import setting_arms
from irformer.precision import LARGEST_HALF
from irformer.reporting.tables import ResultTable

_LONGER = "More steps: the magnitudes of LayerNorm networks keep growing."


# Figure 8


def bias_correlation(record: Record, step: int) -> float:
    """Return Spearman's correlation over channels between the size of the final norm's bias and the magnitude of what it reads."""
    found = record.analysis("final_norm")
    if len(found["bias"]) < 3:
        return float("nan")
    return rank_correlation(np.abs(found["bias"]), np.array(found["magnitude"]))


BIAS_CORRELATION = Quantity("correlation of |bias| and magnitude", bias_correlation)


def _figure8_checks(measured: Measured) -> list[Check]:
    found = measured.mean("ln", BIAS_CORRELATION)
    statement = "With LayerNorm, channels with a large magnitude have a large bias in the final norm"
    return [Check(statement, found, 0.3, 0.0, "(Spearman's correlation over channels)")]


def _figure8(measured: Measured) -> Figure:
    arms = {}
    for key in measured.arms:
        found = measured.records[key][min(measured.records[key])].analysis("final_norm")
        arms[measured.title(key)] = found["magnitude"], list(np.abs(found["bias"]))
    return scatter_figure(arms, "channel magnitude (mean square)", "|bias| of the final norm")


FIGURE8 = Experiment(
    name="figure8",
    reference="Figure 8",
    title="Figure 8: the final norm's bias against channel magnitudes",
    claim=(
        "A network with LayerNorm still restores normal images although its features diverge, since the bias of the final LayerNorm lines "
        "up with the magnitudes of the channels and compensates them. No number is published."
    ),
    in_short="the bias of the final LayerNorm lines up with channel magnitudes",
    arms=official_pair,
    quantities=(BIAS_CORRELATION, MAGNITUDE),
    checks=_figure8_checks,
    would_change=f"{_LONGER} Another measure of alignment, since the paper gives a picture only.",
    figure=_figure8,
    setting="The best averaged weights of the official networks, on the smallest test set. The figure shows one seed.",
    analyses=("final_norm",),
)

# Figure 9


def _smoothness(record: Record, step: int) -> float:
    return float(record.analysis("position_biases")["smoothness"])


SMOOTHNESS = Quantity("smoothness of position biases", _smoothness, 3)


def _figure9_checks(measured: Measured) -> list[Check]:
    smoother = measured.difference("iln", "ln", SMOOTHNESS)
    return [Check("The position biases are smoother with i-LN than with LayerNorm", smoother, 0.0, 0.0, "in smoothness", 3)]


def _figure9(measured: Measured) -> Figure:
    arms = {}
    for key in measured.arms:
        found = measured.records[key][min(measured.records[key])].analysis("position_biases")
        arms[measured.title(key)] = [np.array(table) for table in found["last"][:4]]
    return tables_figure(arms)


FIGURE9 = Experiment(
    name="figure9",
    reference="Figures 9 and 12",
    title="Figure 9: relative position biases",
    claim="The relative position biases are well structured with i-LN and noisy with LayerNorm. The paper shows pictures and no number.",
    in_short="relative position biases are structured with i-LN, noisy with LayerNorm",
    arms=official_pair,
    quantities=(SMOOTHNESS,),
    checks=_figure9_checks,
    would_change=(
        "More steps: biases start as noise of deviation 0.02, and structure grows slowly. Another measure of structure, since the paper "
        "gives pictures only."
    ),
    figure=_figure9,
    setting=(
        "Smoothness is 1 minus the mean squared difference of neighboring biases over twice their variance: 0 for white noise, near 1 for "
        "a smooth surface; it is averaged over all attentions and heads. The figure shows heads of the last attention for one seed."
    ),
    analyses=("position_biases",),
)

# Table 4 and figure 10

PRECISIONS = EVALUATED


@dataclass(frozen=True)
class _Pair:
    """A LayerNorm and an i-LN network that are compared in low precision.

    Args:
        ln: key of the LayerNorm network.
        iln: key of the i-LN network.
        opening: first words of the statements about both.
    """

    ln: str
    iln: str
    opening: str


_NARROW = _Pair("ln", "iln", "In")
_WIDE = _Pair("wide-ln", "wide-iln", "At twice the width, in")  # of figure 2's networks, the one with the largest magnitudes
_PAIRS = (_NARROW, _WIDE)


def _precision_arms(budget: Budget) -> Iterator[Arm]:
    yield from official_pair(budget)
    yield from (arm for arm in setting_arms(budget) if arm.key in (_WIDE.ln, _WIDE.iln))


def _psnr(record: Record, precision: str) -> float:
    return float(record.analysis("precision")[precision]["psnr"])


def _losses(measured: Measured, key: str, precision: str) -> dict[int, float]:
    """Return the loss of PSNR in a precision by seed, in dB."""
    return {seed: _psnr(record, "fp32") - _psnr(record, precision) for seed, record in measured.records[key].items()}


def _more(measured: Measured, pair: _Pair, precision: str) -> Estimate:
    """Estimate how much more LayerNorm loses than i-LN in a precision."""
    ln, iln = _losses(measured, pair.ln, precision), _losses(measured, pair.iln, precision)
    return mean_of([ln[seed] - iln[seed] for seed in sorted(ln.keys() & iln.keys())])


def _table4_checks(measured: Measured) -> list[Check]:
    checks = []
    for pair in _PAIRS:
        kept = mean_of([0.05 - loss for loss in _losses(measured, pair.iln, "fp16").values()])
        checks += [
            Check(f"{pair.opening} fp16, LayerNorm loses at least 1 dB more than i-LN", _more(measured, pair, "fp16"), 1.0, -1.0, "dB", 3),
            Check(f"{pair.opening} fp16, i-LN stays within 0.05 dB of float32 (shown: the margin)", kept, 0.0, 0.0, "dB", 3),
        ]
    return checks


def _figure10_checks(measured: Measured) -> list[Check]:
    return [
        Check(f"{pair.opening} {precision}, LayerNorm loses more than i-LN", _more(measured, pair, precision), 0.0, 0.0, "dB", 3)
        for pair in _PAIRS
        for precision in ("int8", "int4")
    ]


def _precision_table(measured: Measured) -> list[ResultTable]:
    rows = []
    for key in measured.arms:
        found: list[Mapping[str, Any]] = [record.analysis("precision") for record in measured.records[key].values()]
        for precision in PRECISIONS:
            psnr = mean_of([float(one[precision]["psnr"]) for one in found])
            broken = sum(int(one[precision]["non_finite"]) for one in found)
            peak = statistics.median(float(one[precision]["peak"]) for one in found)
            rows.append([measured.title(key), precision, psnr.text(3), f"{broken:,}", f"{peak:.3g}"])
    first = next(iter(next(iter(measured.records.values())).values())).analysis("precision")
    notes = [f"{precision}: {first[precision]['scheme']}." for precision in PRECISIONS]
    notes.append(f"Ranges of activations are calibrated on {', '.join(first['calibration'])}. A value that is not finite counts as black.")
    header = ["arm", "precision", f"PSNR (dB) on {first['test_set']}", "values not finite", "largest activation (median)"]
    return [ResultTable("PSNR by precision", header, rows, notes)]


def _precision_figure(measured: Measured) -> Figure:
    arms = {
        measured.title(key): [[_psnr(record, precision) for precision in PRECISIONS] for record in measured.records[key].values()]
        for key in measured.arms
    }
    return levels_figure(PRECISIONS, arms, "PSNR (dB)")


def _fp16_remarks(measured: Measured) -> list[str]:
    """Return which trained networks fail in float16; where none does, what its residual stream would have to be."""
    end = f"{LARGEST_HALF:,.0f}"
    sentences = []
    for key in measured.arms:
        found = [record.analysis("precision") for record in measured.records[key].values()]
        failing = [one for one in found if one["fp16"]["non_finite"]]
        if failing:
            reached = _listed(f"{float(one['scaled']['stream']):.3g}" for one in failing)
            fp16, fp32 = (_listed(f"{float(one[name]['psnr']):.2f}" for one in failing) for name in ("fp16", "fp32"))
            sentences.append(
                f"{measured.title(key)}: {len(failing)} of {len(found)} trained networks fail in float16, which ends at {end}. Values of "
                f"their residual streams reach {reached}; they restore with {fp16} dB in float16, and with {fp32} dB in float32."
            )
            continue
        scaled = [one["scaled"] for one in found]
        stream, factor = (statistics.median(float(one[word]) for one in scaled) for word in ("stream", "factor"))
        before, after = (mean_of([float(one[word]) for one in scaled]) for word in ("fp32", "fp16"))
        sentences.append(
            f"{measured.title(key)}: the largest value of the residual stream is {stream:,.3g} (median), and float16 ends at {end}. The "
            f"same network with its stream multiplied by {factor:,.0f} (median), which changes no image in float32 ({before.text(3)} dB), "
            f"restores with {after.text(3)} dB in float16. That is a reparametrization, not a trained network: it shows what such a "
            "magnitude does, whatever the norm."
        )
    return sentences


def _listed(words: Iterable[str]) -> str:
    """Return words as `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


TABLE4 = Experiment(
    name="table4",
    reference="Table 4",
    title="Table 4: inference in float16",
    claim=(
        "In float16, HAT_2 x4 with LayerNorm fails: 7.46 dB on Urban100 and 5.07 dB on Manga109. With i-LN it keeps its 27.58 and 32.17 "
        "dB. We do not know the numbers of the table for int8 and int4."
    ),
    in_short="float16 breaks LayerNorm networks (7.46 dB on Urban100); i-LN loses nothing",
    arms=_precision_arms,
    quantities=(QUALITY, MAGNITUDE),
    checks=_table4_checks,
    would_change=_LONGER,
    figure=_precision_figure,
    setting=(
        "The best averaged weights of the official networks, evaluated in each precision on the smallest test set. The networks of twice "
        "the width, shared with figure 2, train for fewer steps."
    ),
    remarks=_fp16_remarks,
    tables=_precision_table,
    analyses=("precision",),
)

FIGURE10 = Experiment(
    name="figure10",
    reference="Figure 10",
    title="Figure 10: inference in int8 and int4",
    claim="i-LN tolerates low precision (int8, int4 and float16) better than LayerNorm. We do not know the numbers.",
    in_short="i-LN tolerates int8 and int4 better than LayerNorm",
    arms=_precision_arms,
    quantities=(QUALITY, LOG_MAGNITUDE),
    checks=_figure10_checks,
    would_change=f"{_LONGER} Another quantization scheme, since the paper's is not known to us.",
    figure=_precision_figure,
    setting="The networks and the numbers of table4.",
    tables=_precision_table,
    analyses=("precision",),
)

WEIGHT_CLAIMS: Sequence[Experiment] = (FIGURE8, FIGURE9, TABLE4, FIGURE10)
