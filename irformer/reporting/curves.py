"""Charts of training runs, from the files in their folders: loss, validation metrics, gradient norm and feature statistics."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from irformer.dynamics.figures import Dynamics, read_dynamics
from irformer.metrics import MetricTraits
from irformer.reporting.charts import Chart, Series

_METRICS = "metrics.csv"
_DYNAMICS = "dynamics.csv"
_LOSS = "train/loss"


def run_charts(folders: Mapping[str, Path], channels: Sequence[int] = (), traits: Mapping[str, MetricTraits] | None = None) -> list[Chart]:
    """Return charts of runs: those of a single run show the terms of its loss and all of its layers, those of several compare the runs.

    What a run has not logged is omitted. Steps are completed optimizer steps.

    Args:
        folders: folders of runs by the name in the legend.
        channels: C of each group's output; an entropy of ln C means that all channels have the same magnitude.
        traits: traits of the validation metrics.
    """
    logged = {name: read_metrics(folder / _METRICS) for name, folder in folders.items()}
    dynamics = {name: read_dynamics(folder / _DYNAMICS) for name, folder in folders.items() if (folder / _DYNAMICS).is_file()}
    names = list(dict.fromkeys(value for run in logged.values() for value in run))
    terms = [name for name in names if name.startswith(f"{_LOSS}_")] if len(folders) == 1 else []
    losses = [_series(run, [_LOSS, *terms], label) for label, run in logged.items()]
    charts = [Chart("Training loss", [series for part in losses for series in part], logarithmic=True)]
    for name in names:
        group, _, metric = name.partition("/")
        if group == "val":
            unit = (traits or {})[metric].unit if metric in (traits or {}) else ""
            series = [curve for label, run in logged.items() for curve in _series(run, [name], label)]
            charts.append(Chart(f"Validation {metric}", series, unit=unit))
    gradients = [curve for label, run in logged.items() for curve in _series(run, ["train/grad_norm"], label)]
    charts.append(Chart("Gradient norm", gradients, note="Before clipping.", logarithmic=True))
    charts += _layers(next(iter(dynamics.values())), channels) if len(folders) == 1 and dynamics else _last_layers(dynamics, channels)
    return [chart for chart in charts if any(len(series.steps) for series in chart.series)]


def read_metrics(path: Path) -> dict[str, Series]:
    """Read the curves of a run's metrics.csv by name, with completed steps; a missing file has none."""
    if not path.is_file():
        return {}
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points[row["name"]].append((int(row["step"]) + 1, float(row["value"])))  # Lightning counts from 0
    return {name: Series(name, *zip(*values, strict=True)) for name, values in points.items()}


def _series(run: Mapping[str, Series], names: Sequence[str], label: str) -> list[Series]:
    """Return a run's curves; one of several is called by its own name."""
    found = [run[name] for name in names if name in run]
    return [Series(series.name.partition("/")[2] if len(found) > 1 else label, series.steps, series.values) for series in found]


_MAGNITUDE = "Mean square of the output of {}."
_ENTROPY = "Entropy of the channels' shares in the output of {}, in nats. At 0, one channel dominates."


def _layers(dynamics: Dynamics, channels: Sequence[int]) -> list[Chart]:
    """Return charts of a single run's groups, in order of depth."""
    each = {
        key: [Series(f"group {i}", curve.steps, curve.values) for i, curve in enumerate(dynamics.get(key, ()), start=1)]
        for key in ("mean_square", "channel_entropy")
    }
    return _dynamics_charts(each, "each group of blocks", channels, ordered=True)


def _last_layers(dynamics: Mapping[str, Dynamics], channels: Sequence[int]) -> list[Chart]:
    """Return charts of several runs' last groups."""
    each = {
        key: [Series(name, run[key][-1].steps, run[key][-1].values) for name, run in dynamics.items() if run.get(key)]
        for key in ("mean_square", "channel_entropy")
    }
    return _dynamics_charts(each, "the last group of blocks", channels, ordered=False)


def _dynamics_charts(each: Mapping[str, list[Series]], what: str, channels: Sequence[int], ordered: bool) -> list[Chart]:
    uniform = {f"ln {size}: all channels alike": math.log(size) for size in sorted(set(channels))}
    return [
        Chart("Feature magnitude", each["mean_square"], note=_MAGNITUDE.format(what), logarithmic=True, ordered=ordered),
        Chart("Channel entropy", each["channel_entropy"], note=_ENTROPY.format(what), ordered=ordered, references=uniform),
    ]
