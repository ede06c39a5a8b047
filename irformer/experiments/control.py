"""The control experiment: which of the three changes of official i-LN networks stops the divergence.

Effects are differences of means over corners, for each seed; their intervals are over the seeds. The main effect of the blocks is LayerNorm
minus i-LN, that of the ends LayerNorm minus affine ends, and that of the input mean removed minus standardized. The interaction of blocks
and ends is the effect of the blocks with LayerNorm ends minus that with affine ends.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from irformer.experiments.arm_records import Record
from irformer.experiments.budgets import Budget
from irformer.experiments.checks import Check
from irformer.experiments.description import Experiment
from irformer.experiments.lab_arms import LN_WITH_AFFINE_ENDS, Arm, Blocks, Ends, long, scheme
from irformer.experiments.measured import ENTROPY, LOG_MAGNITUDE, MAGNITUDE, QUALITY, VALIDATION, Measured, Quantity, magnitude
from irformer.experiments.result_figures import effects_figure
from irformer.experiments.seed_statistics import Estimate, contrast, mean_of
from irformer.reporting.tables import ResultTable

BLOCKS: tuple[Blocks, ...] = ("ln", "iln")
ENDS: tuple[Ends, ...] = ("ln", "affine", "none")
NAMES = {"ln": "LN", "iln": "i-LN", "affine": "affine", "none": "no"}
# The corners that are followed further: blocks and ends with standardized input, and the official LayerNorm network.
LONG = frozenset({("ln", "ln", True), ("ln", "affine", True), ("iln", "ln", True), ("iln", "affine", True), ("ln", "ln", False)})
EFFECTS = ("blocks: LN - i-LN", "ends: LN - affine", "interaction of blocks and ends")
_SETTLED = 500  # steps after which the magnitude of an untrained network no longer matters

Cell = tuple[str, str, bool]


def corner_key(blocks: str, ends: str, standardized: bool) -> str:
    """Return the key of a corner's arm."""
    return f"{blocks}-{ends}-{'standardized' if standardized else 'mean'}"


def corner(budget: Budget, blocks: Blocks, ends: Ends, standardized: bool) -> Arm:
    """Return the arm of a corner."""
    further = long(budget) if (blocks, ends, standardized) in LONG else ()
    title = f"{NAMES[blocks]} blocks, {NAMES[ends]} ends, {'standardized input' if standardized else 'mean removed'}"
    return Arm(corner_key(blocks, ends, standardized), title, scheme(blocks, ends, standardized) + further)


def _arms(budget: Budget) -> Iterator[Arm]:
    """Yield the twelve corners, then LayerNorm blocks with affine ends at twice the learning rate and at twice the depth."""
    for blocks, ends, standardized in product(BLOCKS, ENDS, (True, False)):
        yield corner(budget, blocks, ends, standardized)
    rate = (*LN_WITH_AFFINE_ENDS, f"optim.lr={budget.twice_lr}", *long(budget))
    yield Arm("twice-lr", "LN blocks, affine ends, twice the learning rate", rate)
    deep = (*LN_WITH_AFFINE_ENDS, *budget.twice_depth, *long(budget))
    yield Arm("twice-depth", "LN blocks, affine ends, twice the depth", deep, cost=2.0)


def _by_seed(measured: Measured, quantity: Quantity, cells: Sequence[Cell], step: int) -> dict[Cell, dict[int, float]]:
    return {cell: measured.values(corner_key(*cell), quantity, step) for cell in cells}


def _contrast(values: Mapping[Cell, Mapping[int, float]], weight: Callable[[Cell], float]) -> Estimate:
    return contrast([(weight(cell), by_seed) for cell, by_seed in values.items()])


def _sign(of: str) -> float:
    return 1.0 if of == "ln" else -1.0


def effects(measured: Measured, quantity: Quantity, step: int) -> dict[str, Estimate]:
    """Estimate main effects and interaction among the four long corners with standardized input."""
    values = _by_seed(measured, quantity, [(blocks, ends, True) for blocks in BLOCKS for ends in ("ln", "affine")], step)
    interaction = _contrast(values, lambda cell: _sign(cell[0]) * _sign(cell[1]))
    # The contrast averages both differences; the interaction is the difference of differences, twice as large.
    doubled = Estimate(2 * interaction.mean, 2 * interaction.low, 2 * interaction.high, interaction.count)
    return {
        EFFECTS[0]: _contrast(values, lambda cell: _sign(cell[0])),
        EFFECTS[1]: _contrast(values, lambda cell: _sign(cell[1])),
        EFFECTS[2]: doubled,
    }


def all_corner_effects(measured: Measured, quantity: Quantity, step: int) -> dict[str, Estimate]:
    """Estimate the main effects among all twelve corners, and the interaction of blocks and ends."""
    values = _by_seed(measured, quantity, list(product(BLOCKS, ENDS, (True, False))), step)
    ends = {"ln": 1.0, "affine": -0.5, "none": -0.5}
    interaction = _contrast(values, lambda cell: _sign(cell[0]) * ends[cell[1]])
    return {
        "blocks: LN - i-LN": _contrast(values, lambda cell: _sign(cell[0])),
        "ends: LN - mean of affine and none": _contrast(values, lambda cell: ends[cell[1]]),
        "ends: affine - none": _contrast({c: v for c, v in values.items() if c[1] != "ln"}, lambda c: 1.0 if c[1] == "affine" else -1.0),
        "input: mean removed - standardized": _contrast(values, lambda cell: -1.0 if cell[2] else 1.0),
        "interaction of blocks and ends": Estimate(2 * interaction.mean, 2 * interaction.low, 2 * interaction.high, interaction.count),
    }


def _long_step(measured: Measured) -> int:
    return min(int(record.results["trained_steps"]) for cell in LONG for record in measured.records[corner_key(*cell)].values())


def _steps(measured: Measured, quantity: Quantity) -> list[int]:
    record = next(iter(measured.records[corner_key("ln", "affine", True)].values()))
    curve = next(iter(record.metrics[name] for name in record.metrics if name.startswith("val/"))) if quantity is VALIDATION else None
    steps = record.dynamics["mean_square"][0].steps if curve is None else curve.steps + 1
    return [int(step) for step in steps if step > 0]


def onset(steps: Sequence[int], estimates: Sequence[Estimate]) -> int | None:
    """Return the first step from which on all intervals exclude 0, or None."""
    clear = [estimate.low > 0 or estimate.high < 0 for estimate in estimates]
    if not clear or not clear[-1]:
        return None
    first = len(clear) - next((i for i, value in enumerate(reversed(clear)) if not value), len(clear))
    return steps[first]


def doubling_step(record: Record) -> float:
    """Return the first recorded step from which the magnitude stays above twice its smallest earlier value since step 500; inf if none."""
    steps = [int(step) for step in record.dynamics["mean_square"][0].steps if step >= _SETTLED]
    values = np.array([magnitude(record, step) for step in steps])
    if not len(values):
        return math.inf
    above = values > 2 * np.minimum.accumulate(values)
    if not above[-1]:
        return math.inf
    last_below = int(np.flatnonzero(~above)[-1])
    return float(steps[last_below + 1])


def _checks(measured: Measured) -> list[Check]:
    last = _long_step(measured)
    twin = measured.difference(corner_key("ln", "affine", True), corner_key("iln", "affine", True), LOG_MAGNITUDE, last)
    found = {name: _magnitudes(measured, last, name) for name in EFFECTS[:2]}
    more = mean_of([abs(b) - abs(e) for b, e in zip(found[EFFECTS[0]], found[EFFECTS[1]], strict=True)])
    unit = "in log10 of the magnitude"
    return [
        Check("With affine ends, LN blocks have more than ten times the magnitude of i-LN blocks", twin, 1.0, 0.0, unit),
        Check("The norm of the blocks changes the magnitude more than the final norm does", more, 0.0, 0.0, unit),
    ]


def _magnitudes(measured: Measured, step: int, name: str) -> list[float]:
    """Return a main effect on the log magnitude for each seed."""
    values = _by_seed(measured, LOG_MAGNITUDE, [(blocks, ends, True) for blocks in BLOCKS for ends in ("ln", "affine")], step)
    place = EFFECTS.index(name)
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in values.values())))
    return [sum(_sign(str(cell[place])) * by_seed[seed] for cell, by_seed in values.items()) / 2 for seed in seeds]


def _remarks(measured: Measured) -> list[str]:
    last = _long_step(measured)
    steps = _steps(measured, LOG_MAGNITUDE)
    over = [effects(measured, LOG_MAGNITUDE, step) for step in steps]
    sentences = []
    for name, what in zip(EFFECTS[:2], ("The norm of the blocks", "The final norm"), strict=True):
        estimates = [found[name] for found in over]
        at_end, start = estimates[-1], onset(steps, estimates)
        factor = f"a factor of {10**at_end.mean:.3g} ({at_end.text(sign=True)} in log10) in the magnitude at step {last:,}"
        since = f"its interval excludes 0 from step {start:,} on" if start is not None else "its interval contains 0 at the last step"
        sentences.append(f"{what} (LN instead of {'i-LN' if name == EFFECTS[0] else 'affine'}) explains {factor}; {since}.")
    total = sum(abs(over[-1][name].mean) for name in EFFECTS[:2])
    if total > 0:
        shares = [abs(over[-1][name].mean) / total for name in EFFECTS[:2]]
        sentences.append(
            f"Of the sum of both main effects on the log magnitude, {100 * shares[1]:.0f} % belong to the final norm and "
            f"{100 * shares[0]:.0f} % to the norm of the blocks."
        )
    interaction = over[-1][EFFECTS[2]]
    clear = interaction.low > 0 or interaction.high < 0
    sentences.append(
        f"Their interaction is {interaction.text(sign=True)} in log10: "
        + ("the effect of the blocks depends on the ends." if clear else "no interaction is visible.")
    )
    for key in (corner_key("ln", "affine", True), "twice-lr", "twice-depth", corner_key("iln", "affine", True)):
        found = [doubling_step(record) for record in measured.records[key].values()]
        grown = [step for step in found if math.isfinite(step)]
        middle = f", at step {statistics.median(grown):,.0f} (median)" if grown else ""
        end = MAGNITUDE.text(measured.mean(key, MAGNITUDE, last))
        sentences.append(
            f"{measured.title(key)}: the magnitude more than doubles after step {_SETTLED} for {len(grown)} of {len(found)} seeds{middle}; "
            f"it ends at {end}."
        )
    return sentences


def _tables(measured: Measured) -> list[ResultTable]:
    last, common = _long_step(measured), measured.step
    header = ["effect", "log10 magnitude", "entropy (nats)", "validation PSNR (dB)"]
    quantities = (LOG_MAGNITUDE, ENTROPY, VALIDATION)

    def rows(estimate: Callable[[Measured, Quantity, int], dict[str, Estimate]], step: int) -> list[list[str]]:
        columns = [estimate(measured, quantity, step) for quantity in quantities]
        return [[name, *(column[name].text(quantity.digits, sign=True) for column, quantity in zip(columns, quantities, strict=True))]
                for name in columns[0]]  # fmt: skip

    return [
        ResultTable(f"Effects at step {last:,}, four corners with standardized input", header, rows(effects, last)),
        ResultTable(f"Effects at step {common:,}, all twelve corners", header, rows(all_corner_effects, common)),
    ]


def _figure(measured: Measured) -> Figure:
    panels = {}
    for title, quantity in (("log10 magnitude", LOG_MAGNITUDE), ("entropy (nats)", ENTROPY), ("validation PSNR (dB)", VALIDATION)):
        steps = _steps(measured, quantity)
        over = [effects(measured, quantity, step) for step in steps]
        panels[f"Effect on {title}"] = {name: (steps, [found[name] for found in over]) for name in EFFECTS}
    return effects_figure(panels)


CONTROL = Experiment(
    name="control",
    reference="not in the paper",
    title="Control: which change stops the divergence",
    claim=(
        "The paper attributes the divergence of feature magnitudes to the per-token LayerNorm inside the blocks: a network bypasses it by "
        "amplifying few channels, up to a mean square of 4e7 in its Figure 1, where i-LN stays near 1.2. Its comparison changes three "
        "things at once: the norm of the blocks, the norms at the ends of the network (affine layers with i-LN), and the input, which "
        "i-LN's code standardizes. Here each changes alone."
    ),
    in_short="the norm of the blocks, not the ends or the input, makes magnitudes diverge",
    arms=_arms,
    quantities=(MAGNITUDE, ENTROPY, QUALITY),
    checks=_checks,
    would_change=(
        "More steps, because the norm of the blocks acts slowly; a deeper network, because the paper's has 36 blocks; more seeds, because "
        "three give wide intervals."
    ),
    figure=_figure,
    setting="Two norms of the blocks, three norms at the ends and two inputs: twelve corners. Five corners are followed further.",
    remarks=_remarks,
    tables=_tables,
)
