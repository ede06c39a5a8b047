"""Compare the arms of sweeps, or the networks of benchmarks: means over seeds, and paired differences with confidence intervals.

Statistics for one metric (PSNR in dB, SSIM) on one test set, where x[s, i] is the metric of the run with seed s on image i:

- **Mean and deviation of an arm**: each run is averaged over the images; then the mean and the sample standard deviation (divisor n - 1)
  over the seeds are computed. A single seed has no deviation.
- **Paired difference of two arms a and b**: the mean of a[s, i] - b[s, i] over seeds and images. If the arms have common seeds, only
  these are used, and each seed is paired with itself; otherwise each arm is first averaged over its own seeds.
- **Interval**: a 95 % interval over both seeds and images: a bootstrap that resamples both, widened by Student's t because there are few
  seeds (intervals.py defines it and reports its measured coverage). If an arm has a single seed, the interval covers only images, and the
  verdict says so. A single image has no interval.
- **Seed deviation**: the sample standard deviation over the common seeds of a[s, i] - b[s, i] averaged over the images; without common
  seeds, the root of the sum of both arms' squared deviations. It is unknown if an arm has a single seed.
- **Holm's correction**: beyond two arms, the p-values of all differences on a test set are adjusted, because one of many differences is
  large by chance.
- **Verdict**: within the noise if the interval contains 0, or if the adjusted p-value is 0.05 or more; otherwise the arm with the better
  mean is better. results.json records whether higher or lower is better.

The networks of a benchmark have no seeds, unless they are runs that differ only in the seed; their intervals cover only images.

An image whose metric is infinite in any run (PSNR of equal images) is excluded for all arms, and a note names it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irformer.errors import UserError
from irformer.evaluation.results import agreed_traits, metric_traits
from irformer.metrics import MetricTraits
from irformer.reporting.page import known_traits, metric_column, metric_numbers
from irformer.reporting.tables import Cell, ResultTable
from irformer.runs.arms import Arm, FoundRuns, differing_keys, group_arms, read_runs
from irformer.runs.benchmark_arms import UNSEEDED, BenchmarkArms, find_benchmarks, read_benchmarks
from irformer.runs.comparison_tables import ArmMean, Comparison, ImageDifference, SetComparison
from irformer.runs.differences import Difference, deviation, paired_difference, with_holm_correction

MOST_DIFFERENT = 10
"""Number of images in the table of those that differ most."""


def compare(
    folders: Sequence[Path], metric: str | None = None, by: str | None = None, test_set: str | None = None, reference: str | None = None
) -> Comparison:
    """Compare the arms of all finished runs, or the networks of all benchmarks, in some folders and their subfolders.

    Args:
        folders: folders of sweeps or runs; without runs in them, of benchmarks.
        metric: the metric's name; None selects the first metric of the first run.
        by: a key or group of keys, such as `norm`; only arms that differ in it and in nothing else are compared.
        test_set: the only test set to use; None selects all.
        reference: the label of an arm, or a value that only its label contains; only differences to this arm are computed.

    Raises:
        UserError: there are no runs, or no such metric, test set, key or arm.
    """
    found = read_runs(folders)
    benchmarks = BenchmarkArms() if found.finished else read_benchmarks(find_benchmarks(folders))
    arms = benchmarks.arms or group_arms(found.finished)
    runs = [run for arm in arms for run in arm.runs.values()]
    if not runs:
        if benchmarks.notes:
            raise UserError(benchmarks.notes[0].removeprefix("Skipped: ").rstrip("."))
        if found.broken:
            more = f" (and {len(found.broken) - 1} more runs that cannot be read)" if len(found.broken) > 1 else ""
            raise UserError(f"{found.broken[0]}{more}")
        more = f" ({len(found.unfinished)} unfinished, without results.json)" if found.unfinished else ""
        raise UserError(f"{_listed(folders)}: no finished runs{more}; expected folders with config.yaml and results.json")
    names = list(dict.fromkeys(name for run in runs for name in run.record["test_sets"]))
    if test_set is not None and test_set not in names:
        raise UserError(f"--test-set {test_set}: not measured by these runs; known: {', '.join(names)}")
    metrics = list(dict.fromkeys(name for run in runs for part in run.record["test_sets"].values() for name in part["metrics"]))
    if metric is not None and metric not in metrics:
        raise UserError(f"--metric {metric}: not measured by these runs; known: {', '.join(metrics)}")
    if not metrics:
        raise UserError(f"{_listed(folders)}: nothing to compare, because all results have NaN or infinite values")
    metric = metric or metrics[0]
    pairs = _pairs(arms, by, _reference(arms, reference))
    traits = agreed_traits(metric, {run.folder: run.record for run in runs})
    notes = [] if traits else [f"The runs do not record whether a higher or a lower {metric} is better; higher is assumed to be better."]
    traits = traits or known_traits(metric)
    parts = [_compare_set(name, metric, traits.higher_is_better, arms, pairs) for name in names if test_set in (None, name)]
    notes += benchmarks.notes if benchmarks.arms else _notes(arms, found)
    return Comparison(metric, traits, [part for part in parts if part is not None], notes)


def _pairs(arms: Sequence[Arm], by: str | None, reference: Arm | None) -> list[tuple[Arm, Arm]]:
    pairs = [(a, b) for a, b in combinations(arms, 2)]
    if reference is not None:  # differences are relative to the reference, so it is subtracted
        pairs = [(b, a) if a is reference else (a, b) for a, b in pairs if reference in (a, b)]
    if by is not None:
        pairs = [(a, b) for a, b in pairs if all(key == by or key.startswith(f"{by}.") for key in differing_keys(a.config, b.config))]
        if not pairs:
            raise UserError(f"--by {by}: no two arms differ only in {by}; arms: {_listed(arm.label for arm in arms)}")
    return pairs


def _reference(arms: Sequence[Arm], name: str | None) -> Arm | None:
    """Return the arm with a label, or the only arm whose label contains this `key=value` or value."""
    if name is None:
        return None
    fitting = [arm for arm in arms if arm.label == name] or [
        arm for arm in arms if any(name in (word, word.partition("=")[2]) for word in arm.label.split())
    ]
    fitting = fitting or [arm for arm in arms if any(run.record.get("checkpoint") == name for run in arm.runs.values())]
    if len(fitting) != 1:
        found = "no arm matches" if not fitting else f"{len(fitting)} arms match"
        raise UserError(f"--reference {name}: {found}; arms: {_listed(arm.label for arm in arms)}")
    return fitting[0]


def _compare_set(
    name: str, metric: str, higher_is_better: bool, arms: Sequence[Arm], pairs: Sequence[tuple[Arm, Arm]]
) -> SetComparison | None:
    """Compare the arms with results on a test set, on the images that all of their runs share; return None if no arm has results."""
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
        notes.append(f"Only {len(everywhere)} of {len(union)} images are compared, those in the results of all runs.")
    images = [image for image in everywhere if all(math.isfinite(table[image][metric]) for table in tables)]
    if excluded := [image for image in everywhere if image not in images]:
        notes.append(f"Excluded, because {metric} is infinite or undefined (identical to the ground truth?): {', '.join(excluded)}.")
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
    differences = [replace(found, seeds=[seed for seed in found.seeds if seed != UNSEEDED]) for found in with_holm_correction(differences)]
    most_different = [_most_different(images, values[difference.a], values[difference.b]) for difference in differences]
    notes += _seed_notes(differences, values)
    return SetComparison(name, len(images), means, differences, notes, most_different)


def _most_different(
    images: Sequence[str], first: Mapping[int, NDArray[np.float64]], second: Mapping[int, NDArray[np.float64]]
) -> list[ImageDifference]:
    a, b = (np.mean(list(seeds.values()), axis=0) for seeds in (first, second))
    order = np.argsort(-np.abs(a - b), kind="stable")[:MOST_DIFFERENT]
    return [ImageDifference(images[i], float(a[i]), float(b[i])) for i in order]


def _seed_notes(differences: Sequence[Difference], values: Mapping[str, Mapping[int, Any]]) -> list[str]:
    notes = []
    for difference in differences:
        pair = f"{difference.a} - {difference.b}"
        if UNSEEDED in values[difference.a] or UNSEEDED in values[difference.b]:
            continue  # the verdict says that the interval covers only images
        if not difference.seeds:
            notes.append(f"{pair}: no common seeds; each arm is averaged over its own seeds.")
        elif set(difference.seeds) != values[difference.a].keys() | values[difference.b].keys():
            notes.append(f"{pair}: only the common seeds are used: {_listed(difference.seeds)}.")
    return notes


def _notes(arms: Sequence[Arm], found: FoundRuns) -> list[str]:
    notes = []
    records = [run.record for arm in arms for run in arm.runs.values()]
    if len(tasks := list(dict.fromkeys(record.get("task_label", record["task"]) for record in records))) > 1:
        notes.append(f"The arms have different tasks ({', '.join(tasks)}): images of the same name were degraded differently.")
    # Padding depends on the network; any other difference between protocols makes results incomparable.
    protocols = {json.dumps({**record["protocol"], "padding": None}, sort_keys=True) for record in records}
    if len(protocols) > 1 and len(tasks) == 1:
        notes.append("The runs were measured under different protocols (results.json: protocol); their results are not comparable.")
    return notes + _skipped(found)


def _skipped(found: FoundRuns) -> list[str]:
    notes = []
    if found.unfinished:
        notes.append(f"Skipped, unfinished: {_listed(folder.name for folder in found.unfinished)}.")
    return notes + [f"Skipped: {fault}." for fault in found.broken]


def sweep_table(folder: Path) -> ResultTable | None:
    """Return the results of all finished runs in a folder and its subfolders by arm: mean and deviation over seeds, then each run.

    Runs may have different tasks: a cell is empty if a run has no results on a test set. Return None if no run is finished.
    """
    found = read_runs([folder])
    runs = found.finished
    if not runs:
        return None
    sets = list(dict.fromkeys(name for run in runs for name in run.record["test_sets"]))
    metrics = list(dict.fromkeys(name for run in runs for name in run.record["protocol"]["metrics"]))
    metrics += dict.fromkeys(  # metrics that no protocol names
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
    notes = _skipped(found)
    if any(len(arm.runs) > 1 for arm in arms):
        notes.append("±: sample standard deviation over seeds.")
    columns = [metric_column(name, metrics, traits) for name in sets]
    return ResultTable(f"{folder}: {' / '.join(metrics)}", ["arm", "run", "step", *columns], rows, notes)


def _mean_cell(measured: Sequence[Mapping[str, float]], names: Sequence[str], traits: Mapping[str, MetricTraits]) -> Cell:
    """Return means over runs, each with its standard deviation."""
    if not all(measured):
        return None
    values = {name: [metrics[name] for metrics in measured] for name in measured[0]}
    means = {name: float(np.mean(row)) for name, row in values.items()}
    return metric_numbers(means, names, traits, {name: deviation(row) for name, row in values.items()})


def _listed(things: Any) -> str:
    return ", ".join(str(thing) for thing in things)
