"""Arms of a sweep set against each other: means and deviations over seeds, paired differences, and whether they are more than noise.

The statistics, for one metric (PSNR in dB, SSIM) on one test set, x[s, i] being what the run of seed s reaches on image i:

- **Mean and deviation of an arm**: each run's mean over the images; then mean and sample standard deviation (divisor n - 1) of these
  over the seeds. One seed has no deviation.
- **Paired difference of two arms a and b**: the mean over seeds and images of a[s, i] - b[s, i]. Where the arms have seeds in common,
  only these count and each is paired with itself; otherwise each arm's mean over its own seeds is taken first.
- **Interval**: 95 %, over seeds and images together: a bootstrap that resamples both, widened by Student's t because seeds are few
  (intervals.py gives the rule and its measured coverage). With one seed on a side it covers images alone, and the verdict says
  so. One image has no interval.
- **Scatter of seeds**: the sample standard deviation, over the common seeds, of the mean over the images of a[s, i] - b[s, i]; without
  common seeds the root of the sum of both arms' squared deviations. It is unknown where a single seed stands on a side.
- **Verdict**: within the noise if the interval contains 0, otherwise the arm with the better mean is better. results.json records whether
  higher or lower is better.

An image whose metric is infinite in any run (PSNR of equal images) has no difference; it is left out for all arms, and a note names it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irformer.core.files import write_atomically
from irformer.errors import UserError
from irformer.evaluation.results import agreed_traits, metric_traits
from irformer.metrics import MetricTraits
from irformer.reporting.page import known_traits, metric_column, metric_numbers
from irformer.reporting.tables import Cell, Column, Number, Numbers, Part, ResultTable
from irformer.runs.arms import Arm, FoundRuns, differing_keys, group_arms, read_runs
from irformer.runs.intervals import RESAMPLES, covers_seeds, difference_interval


def deviation(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Sample standard deviation (divisor n - 1); None for one value, and where a value is infinite."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b on one test set; the module's docstring defines all numbers.

    Args:
        a: label of an arm.
        b: label of the other.
        seeds: in common; empty where each arm was averaged over its own.
        mean: of the paired differences.
        interval: 95 % interval of the mean, or None for one image.
        covers_seeds: the interval covers seeds and images; otherwise, with one seed on a side, images alone.
        seed_deviation: scatter of seeds, or None where it is unknown.
        higher_is_better: the direction of the metric.
    """

    a: str
    b: str
    seeds: list[int]
    mean: float
    interval: tuple[float, float] | None
    covers_seeds: bool
    seed_deviation: float | None
    higher_is_better: bool = True

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]

    @property
    def verdict(self) -> str:
        """The difference in words."""
        if self.interval is None:
            return "not decided: one image has no interval"
        better = self.a if (self.mean > 0) == self.higher_is_better else self.b
        said = "within the noise: the interval contains 0" if self.within_noise else f"{better} is better"
        return said if self.covers_seeds else f"{said}; the interval covers images alone, since there is one seed"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for compare.json."""
        return {**asdict(self), "within_noise": self.within_noise, "verdict": self.verdict}


def paired_difference(
    a: str,
    b: str,
    first: Mapping[int, NDArray[np.float64]],
    second: Mapping[int, NDArray[np.float64]],
    higher_is_better: bool = True,
) -> Difference:
    """Set two arms against each other.

    Args:
        a: label of the first arm.
        b: label of the second.
        first: of the first arm, for each seed one finite value for each image, [images].
        second: of the second, on the same images in the same order.
        higher_is_better: the direction of the metric.
    """
    common = sorted(first.keys() & second.keys())
    if common:
        arms = [np.stack([first[seed] - second[seed] for seed in common])]  # [seeds, images]
        mean, scatter = float(arms[0].mean()), deviation(arms[0].mean(1))
    else:
        arms = [np.stack(list(arm.values())) for arm in (first, second)]
        own = [deviation(arm.mean(1)) for arm in arms]
        mean, scatter = float(arms[0].mean() - arms[1].mean()), None if None in own else math.hypot(*own)  # type: ignore[arg-type]
    interval = difference_interval(arms) if arms[0].shape[1] > 1 else None
    return Difference(a, b, common, mean, interval, covers_seeds(arms), scatter, higher_is_better)


@dataclass(frozen=True)
class ArmMean:
    """An arm on one test set: mean over the images for each seed, mean and sample standard deviation over the seeds."""

    label: str
    seeds: dict[int, float]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class SetComparison:
    """All arms on one test set; `notes` say which images were left out and why."""

    name: str
    images: int
    arms: list[ArmMean]
    differences: list[Difference]
    notes: list[str]


@dataclass(frozen=True)
class Comparison:
    """Arms set against each other on one metric."""

    metric: str
    traits: MetricTraits
    sets: list[SetComparison]
    notes: list[str]

    def tables(self) -> list[ResultTable]:
        """For each test set the arms' means, and where there are two arms or more, their differences."""
        tables = []
        for part in self.sets:
            title = f"{part.name}, {part.images} image{'s' * (part.images != 1)}: {self.metric}"
            rows: list[list[Cell]] = [
                [
                    arm.label,
                    self._number(arm.mean),
                    self._number(arm.deviation),
                    Numbers(tuple(self._number(value) for value in arm.seeds.values()), between=", "),
                ]
                for arm in part.arms
            ]
            seeds = list(dict.fromkeys(_listed(arm.seeds) for arm in part.arms))
            single = f"seeds {seeds[0]}" if len(seeds) == 1 else "single seeds"
            mean = Column("mean", (Part("", self.traits.higher_is_better),))
            tables.append(ResultTable(title, ["arm", mean, "deviation", single], rows, part.notes))
            if part.differences:
                rows = [
                    [
                        f"{difference.a} - {difference.b}",
                        self._number(difference.mean, sign=True),
                        self._interval(difference.interval),
                        self._number(difference.seed_deviation),
                        difference.verdict,
                    ]
                    for difference in part.differences
                ]
                interval = Column("95 % interval", (Part("low"), Part("high")))
                header: list[str | Column] = ["difference", self.metric, interval, "scatter of seeds", "in words"]
                tables.append(ResultTable(f"{part.name}: paired differences", header, rows))
        return tables

    def write(self, folder: Path) -> list[Path]:
        """Write compare.md and compare.json into a folder; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join([*(f"## {table.title}\n\n{table.markdown()}" for table in self.tables()), *self.notes, ""])
        sets = {
            part.name: {
                "images": part.images,
                "arms": {arm.label: {"mean": arm.mean, "deviation": arm.deviation, "seeds": arm.seeds} for arm in part.arms},
                "differences": [difference.as_dict() for difference in part.differences],
                "notes": part.notes,
            }
            for part in self.sets
        }
        record = {
            "metric": self.metric,
            "higher_is_better": self.traits.higher_is_better,
            "resamples": RESAMPLES,
            "test_sets": sets,
            "notes": self.notes,
        }
        files = {folder / "compare.md": text, folder / "compare.json": json.dumps(record, indent=1) + "\n"}
        for file, content in files.items():
            write_atomically(file, lambda aside, content=content: aside.write_text(content, encoding="utf-8"))  # type: ignore[misc]
        return list(files)

    def _number(self, value: float | None, sign: bool = False) -> Number | None:
        """A value with one decimal more than the metric has: PSNR in dB with three, SSIM with five."""
        return None if value is None else Number(value, self.traits.digits + 1, sign)

    def _interval(self, interval: tuple[float, float] | None) -> Numbers | None:
        if interval is None:
            return None
        return Numbers(tuple(self._number(end, sign=True) for end in interval), between=", ", brackets=("[", "]"))


def compare(
    folders: Sequence[Path], metric: str | None = None, by: str | None = None, test_set: str | None = None, reference: str | None = None
) -> Comparison:
    """Set the arms of all finished runs at and below some folders against each other.

    Args:
        folders: of sweeps or runs.
        metric: its name; None takes the first of the first run's protocol.
        by: a key or group of keys, as `norm`: only arms that differ in it and in nothing else are set against each other.
        test_set: only this one; None takes all.
        reference: the label of an arm, or a value that only its label has: only differences to it are taken.

    Raises:
        UserError: there are no runs, or no such metric, test set, key or arm.
    """
    found = read_runs(folders)
    runs = found.finished
    if not runs:
        if found.broken:
            more = f" (and {len(found.broken) - 1} more runs that cannot be read)" if len(found.broken) > 1 else ""
            raise UserError(f"{found.broken[0]}{more}")
        more = f" ({len(found.unfinished)} without results.json: not at their end)" if found.unfinished else ""
        raise UserError(f"{_listed(folders)}: no finished runs{more}; expected folders with config.yaml and results.json")
    arms = group_arms(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.record["test_sets"]))
    if test_set is not None and test_set not in names:
        raise UserError(f"--test-set {test_set}: not measured by these runs; known: {', '.join(names)}")
    metrics = list(dict.fromkeys(name for run in runs for part in run.record["test_sets"].values() for name in part["metrics"]))
    if metric is not None and metric not in metrics:
        raise UserError(f"--metric {metric}: not measured by these runs; known: {', '.join(metrics)}")
    metric = metric or metrics[0]
    pairs = _pairs(arms, by, _reference(arms, reference))
    traits = agreed_traits(metric, {run.folder: run.record for run in runs})
    notes = [] if traits else [f"The runs do not record whether higher or lower {metric} is better: higher is taken as better."]
    traits = traits or known_traits(metric)
    parts = [_compare_set(name, metric, traits.higher_is_better, arms, pairs) for name in names if test_set in (None, name)]
    return Comparison(metric, traits, [part for part in parts if part is not None], notes + _notes(arms, found))


def _pairs(arms: Sequence[Arm], by: str | None, reference: Arm | None) -> list[tuple[Arm, Arm]]:
    pairs = [(a, b) for a, b in combinations(arms, 2)]
    if reference is not None:  # the difference to it, so that it stands on the right
        pairs = [(b, a) if a is reference else (a, b) for a, b in pairs if reference in (a, b)]
    if by is not None:
        pairs = [(a, b) for a, b in pairs if all(key == by or key.startswith(f"{by}.") for key in differing_keys(a.config, b.config))]
        if not pairs:
            raise UserError(f"--by {by}: no two arms differ in {by} alone; arms: {_listed(arm.label for arm in arms)}")
    return pairs


def _reference(arms: Sequence[Arm], name: str | None) -> Arm | None:
    """The arm of a label, or the only arm with that word or value in its label."""
    if name is None:
        return None
    fitting = [arm for arm in arms if arm.label == name] or [
        arm for arm in arms if any(name in (word, word.partition("=")[2]) for word in arm.label.split())
    ]
    if len(fitting) != 1:
        found = "no arm is called so" if not fitting else f"{len(fitting)} arms are called so"
        raise UserError(f"--reference {name}: {found}; arms: {_listed(arm.label for arm in arms)}")
    return fitting[0]


def _compare_set(
    name: str, metric: str, higher_is_better: bool, arms: Sequence[Arm], pairs: Sequence[tuple[Arm, Arm]]
) -> SetComparison | None:
    """The arms that were measured on a test set, on the images that all of their runs have; None where there is none."""
    measured = {arm.label: {seed: run.record["test_sets"][name]["per_image"] for seed, run in arm.runs.items()
                            if metric in run.record["test_sets"].get(name, {}).get("metrics", {})} for arm in arms}  # fmt: skip
    measured = {label: seeds for label, seeds in measured.items() if seeds}
    tables = [per_image for seeds in measured.values() for per_image in seeds.values()]
    if not tables:
        return None
    notes = []
    everywhere = [image for image in tables[0] if all(image in table for table in tables)]
    union = {image for table in tables for image in table}
    if len(everywhere) < len(union):
        notes.append(f"Only the {len(everywhere)} images that all runs were measured on are compared, of {len(union)} in all.")
    images = [image for image in everywhere if all(math.isfinite(table[image][metric]) for table in tables)]
    if left_out := [image for image in everywhere if image not in images]:
        notes.append(f"Left out, since {metric} is infinite or undefined there (restored to the very truth?): {', '.join(left_out)}.")
    if not images:
        raise UserError(f"{name}: no image has a finite {metric} in all runs; compare fewer runs, or another test set by --test-set")
    values = {
        label: {seed: np.array([per_image[image][metric] for image in images]) for seed, per_image in seeds.items()}
        for label, seeds in measured.items()
    }
    means = []
    for label, seeds in values.items():
        by_seed = {seed: float(row.mean()) for seed, row in seeds.items()}
        means.append(ArmMean(label, by_seed, float(np.mean(list(by_seed.values()))), deviation(list(by_seed.values()))))
    differences = [
        paired_difference(a.label, b.label, values[a.label], values[b.label], higher_is_better)
        for a, b in pairs
        if {a.label, b.label} <= values.keys()
    ]
    notes += _seed_notes(differences, values)
    return SetComparison(name, len(images), means, differences, notes)


def _seed_notes(differences: Sequence[Difference], values: Mapping[str, Mapping[int, Any]]) -> list[str]:
    notes = []
    for difference in differences:
        pair = f"{difference.a} - {difference.b}"
        if not difference.seeds:
            notes.append(f"{pair}: no seed in common, so each arm is averaged over its own seeds.")
        elif set(difference.seeds) != values[difference.a].keys() | values[difference.b].keys():
            notes.append(f"{pair}: only the common seeds count, {_listed(difference.seeds)}.")
    return notes


def _notes(arms: Sequence[Arm], found: FoundRuns) -> list[str]:
    notes = []
    records = [run.record for arm in arms for run in arm.runs.values()]
    if len(tasks := list(dict.fromkeys(record.get("task_label", record["task"]) for record in records))) > 1:
        notes.append(f"The arms' tasks differ ({', '.join(tasks)}): images of the same name were degraded in different ways.")
    # Padding is each network's own rule; everything else in a protocol makes two numbers incomparable.
    protocols = {json.dumps({**record["protocol"], "padding": None}, sort_keys=True) for record in records}
    if len(protocols) > 1 and len(tasks) == 1:
        notes.append("The runs were measured by different protocols (results.json: protocol): their numbers are not comparable.")
    return notes + _left_out(found)


def _left_out(found: FoundRuns) -> list[str]:
    notes = []
    if found.unfinished:
        notes.append(f"Left out, not at their end: {_listed(folder.name for folder in found.unfinished)}.")
    return notes + [f"Left out: {fault}." for fault in found.broken]


def sweep_table(folder: Path) -> ResultTable | None:
    """The results of all finished runs at and below a folder, by arms: mean and deviation over the seeds above the single runs.

    Runs need not share a task: a cell is empty where a run was not measured on a test set. None where no run has come to its end.
    """
    found = read_runs([folder])
    runs = found.finished
    if not runs:
        return None
    sets = list(dict.fromkeys(name for run in runs for name in run.record["test_sets"]))
    metrics = list(dict.fromkeys(name for run in runs for name in run.record["protocol"]["metrics"]))
    metrics += dict.fromkeys(  # those that a protocol does not name
        name for run in runs for part in run.record["test_sets"].values() for name in part["metrics"] if name not in metrics
    )
    traits = {name: known for run in runs for name, known in metric_traits(run.record).items()}
    rows: list[list[Cell]] = []
    arms = group_arms(runs)
    for arm in arms:
        measured = [[run.record["test_sets"].get(name, {}).get("metrics", {}) for run in arm.runs.values()] for name in sets]
        if len(arm.runs) > 1:
            rows.append([arm.label, f"mean of seeds {_listed(arm.runs)}", "", *(_mean_cell(cell, metrics, traits) for cell in measured)])
        for i, run in enumerate(arm.runs.values()):
            cells = [metric_numbers(cell[i], metrics, traits) for cell in measured]
            rows.append([arm.label if len(arm.runs) == 1 else "", run.folder.name, str(run.record.get("step", "-")), *cells])
    notes = _left_out(found)
    if any(len(arm.runs) > 1 for arm in arms):
        notes.append("± sample standard deviation over seeds.")
    columns = [metric_column(name, metrics, traits) for name in sets]
    return ResultTable(f"{folder}: {' / '.join(metrics)}", ["arm", "run", "step", *columns], rows, notes)


def _mean_cell(measured: Sequence[Mapping[str, float]], names: Sequence[str], traits: Mapping[str, MetricTraits]) -> Cell:
    """Means over runs, each with its deviation."""
    if not all(measured):
        return None
    values = {name: [metrics[name] for metrics in measured] for name in measured[0]}
    means = {name: float(np.mean(row)) for name, row in values.items()}
    return metric_numbers(means, names, traits, {name: deviation(row) for name, row in values.items()})


def _listed(things: Any) -> str:
    return ", ".join(str(thing) for thing in things)
