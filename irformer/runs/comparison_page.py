"""The page of a comparison: its tables, the differences with their intervals, and the curves of the runs."""

from collections.abc import Sequence
from pathlib import Path

from irformer.metrics import MetricTraits
from irformer.reporting.curves import run_charts
from irformer.reporting.forest import Forest, Interval
from irformer.reporting.page import write_page
from irformer.reporting.tables import Number
from irformer.runs.arms import Arm, group_arms, read_runs
from irformer.runs.comparison_tables import Comparison, SetComparison
from irformer.runs.differences import Difference

_CURVES = 18  # that can be told apart in a chart


def write_comparison_page(path: Path, comparison: Comparison, folders: Sequence[Path]) -> None:
    """Write the page of a comparison.

    Args:
        path: the file to write.
        comparison: the comparison.
        folders: the folders that were compared; the curves are read from the runs in them.
    """
    names = list(dict.fromkeys(arm.label for part in comparison.sets for arm in part.arms))
    shown, left_out = _runs(group_arms(read_runs(folders).finished))
    measured = f"{comparison.metric}, {'higher' if comparison.traits.higher_is_better else 'lower'} is better"
    write_page(
        path,
        title=" against ".join(names) if len(names) <= 2 else f"Comparison of {len(names)} arms",
        summary={"metric": measured, "folders": ", ".join(map(str, folders))},
        tables=comparison.tables(),
        remarks=[*comparison.notes, *([left_out] if left_out else [])],
        differences=[_forest(part, comparison.metric, comparison.traits) for part in comparison.sets if part.differences],
        details=comparison.image_tables(),
        plots=run_charts(shown, traits={comparison.metric: comparison.traits}),
    )


def _runs(arms: Sequence[Arm]) -> tuple[dict[str, Path], str]:
    """Return folders by the name of their curves, and a remark if there are too many runs to show all of them."""
    runs = [(arm, seed, run.folder) for arm in arms for seed, run in arm.runs.items()]
    if len(runs) <= _CURVES:
        return {arm.label if len(arm.runs) == 1 else f"{arm.label}, seed {seed}": folder for arm, seed, folder in runs}, ""
    first = {arm.label: next(iter(arm.runs.values())).folder for arm in arms[:_CURVES]}
    which = "all arms" if len(first) == len(arms) else f"the first {len(first)} of {len(arms)} arms"
    return first, f"The charts show one run of {which}, that with the smallest seed."


def _forest(part: SetComparison, metric: str, traits: MetricTraits) -> Forest:
    note = "Each line is a 95 % interval; one that contains 0 is within the noise."
    return Forest(f"{part.name}: {metric}", [_interval(difference, traits) for difference in part.differences], note)


def _interval(difference: Difference, traits: MetricTraits) -> Interval:
    def number(value: float) -> Number:
        return Number(value, traits.digits + 1, sign=True)

    low, high = (None, None) if difference.interval is None else map(number, difference.interval)
    decided = difference.interval is not None and not difference.within_noise
    better = (difference.mean > 0) == difference.higher_is_better if decided else None
    return Interval(f"{difference.a} - {difference.b}", number(difference.mean), low, high, better, difference.verdict)
