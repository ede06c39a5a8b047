"""Records of finished runs: the numbers that pages are built from, a few kilobytes per run, without weights and paths of a machine.

A record is a folder named like its run:

    config.yaml      the run's configuration, without the keys that name folders of a machine
    results.json     as written by the run, and what `irformer.experiments.analyses` adds
    dynamics.csv     step, layer, name, and one column per statistic; groups only, steps thinned, values rounded to four digits
    metrics.csv      as written by the run, thinned
    provenance.json  the devices, versions and code of each start
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from irformer.config.saved import CONFIG
from irformer.core.files import write_atomically
from irformer.dynamics.dynamics_csv import read_rows
from irformer.dynamics.figures import Curve, Dynamics
from irformer.dynamics.selection import GROUPS
from irformer.errors import UserError
from irformer.evaluation.results import read_results, write_results
from irformer.experiments.analyses import analyze
from irformer.experiments.planning import PlannedRun
from irformer.runs.arms import Config, differing_keys, flat_config, read_config
from irformer.training.provenance import PROVENANCE
from irformer.training.resuming import RESULTS, is_complete

_POINTS = 40  # steps of a record's dynamics and metrics
_NOT_RECORDED = ("paths", "name", "resume")
_PROVENANCE = ("devices", "python", "irformer", "code", "packages")
_METRICS = ("train/loss", "val/")  # those that a record keeps, by the start of their names


@dataclass(frozen=True)
class Record:
    """The record of a finished run.

    Args:
        folder: the record's folder.
    """

    folder: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        return read_results(self.folder / RESULTS)

    @cached_property
    def dynamics(self) -> Dynamics:
        """The statistics of the features: by statistic, one curve per layer in the order of depth."""
        return _read_dynamics(self.folder / "dynamics.csv")

    @cached_property
    def metrics(self) -> dict[str, Curve]:
        """Losses and validation metrics over the steps, by name."""
        return _read_metrics(self.folder / "metrics.csv")

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """Devices, versions and code of each start of the run."""
        starts: list[dict[str, Any]] = json.loads((self.folder / PROVENANCE).read_text(encoding="utf-8"))["starts"]
        return starts

    def analysis(self, name: str) -> Any:
        """Return the result of an analysis."""
        return self.results["analyses"][name]

    @property
    def config(self) -> Config:
        """The configuration by dotted key."""
        return flat_config(read_config(self.folder / CONFIG))


def find_record(run: PlannedRun, records: Path, verify: bool = True) -> Record | None:
    """Return the record of a run, or None if there is none.

    Keys that only one of both configurations has belong to another version of irformer, in which they had no effect.

    Args:
        run: the run.
        records: the folder of the budget's records.
        verify: compare the configurations; without, a record is found by its name, which contains the run's overrides.

    Raises:
        UserError: the record belongs to another configuration.
    """
    folder = records / run.name
    if not is_complete(folder, run.steps):
        return None
    if verify:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        if text != config_text(run) and (differing := _differences(folder / CONFIG, text, run)):
            raise UserError(f"{folder}: the record of another configuration: {'; '.join(differing)}; remove it to train this one")
    return Record(folder)


def config_text(run: PlannedRun) -> str:
    """Return the config.yaml of a run's record, as it is if the run was trained by this version of irformer."""
    text = _text_of_arm(replace(run, seed=0, overrides=(*run.overrides[:-1], "seed=0")))
    return text.replace("\nseed: 0\n", f"\nseed: {run.seed}\n", 1)


@cache
def _text_of_arm(run: PlannedRun) -> str:
    return _recorded(run.config)


def _recorded(config: DictConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key not in _NOT_RECORDED]))


@cache
def _differences(file: Path, text: str, run: PlannedRun) -> list[str]:
    """Return the first differences of a record's configuration, whose text is a part of the key of the cache."""
    there, here = flat_config(read_config(file)), flat_config(run.config)
    differing = [key for key in differing_keys(there, here) if key in there and key in here]
    return [f"{key} is {there[key]} there and {here[key]} here" for key in differing[:3]]


def lacking_analyses(record: Record, names: Iterable[str]) -> list[str]:
    """Return the names of the analyses that a record lacks."""
    return [name for name in names if name not in record.results.get("analyses", {})]


def complete_record(record: Record, run: PlannedRun, names: Sequence[str]) -> Record:
    """Add analyses to a record, from the weights of the run.

    Raises:
        UserError: the weights are missing.
    """
    found = analyze(run.folder, run.config, names)
    analyses = record.results.get("analyses", {}) | found
    write_results(record.folder / RESULTS, record.results | {"analyses": dict(sorted(analyses.items()))})
    return Record(record.folder)


def write_record(run: PlannedRun, records: Path, analyses: Sequence[str] = ()) -> Record:
    """Write the record of a complete run; results.json is written last, so a record with this file is complete.

    Args:
        run: the run.
        records: the folder of the budget's records.
        analyses: names of analyses that its pages need.
    """
    folder = records / run.name
    source = run.folder
    text = _recorded(read_config(source / CONFIG))
    write_atomically(folder / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    starts = json.loads((source / PROVENANCE).read_text(encoding="utf-8"))["starts"]
    kept = {"starts": [{key: start[key] for key in _PROVENANCE if key in start} for start in starts]}
    write_atomically(folder / PROVENANCE, lambda temporary: temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8"))
    if (source / "dynamics.csv").is_file():
        _write_rows(folder / "dynamics.csv", _wide_dynamics(source / "dynamics.csv"))
    _write_rows(folder / "metrics.csv", _thin_metrics(source / "metrics.csv"))
    results = read_results(source / RESULTS)
    if analyses:
        results["analyses"] = analyze(source, run.config, analyses)
    write_results(folder / RESULTS, results)
    return Record(folder)


def _write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    write_atomically(path, write)


def _thinned(steps: Iterable[int]) -> list[int]:
    """Return at most `_POINTS` of some steps, evenly spaced in their order, with the first and the last."""
    ordered = sorted(set(steps))
    if len(ordered) <= _POINTS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (_POINTS - 1))] for i in range(_POINTS)]


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _wide_dynamics(path: Path) -> list[list[str]]:
    """Return the rows of a record's dynamics.csv from those of a run: the groups on the fixed batch."""
    rows = [row for row in read_rows(path) if (row.kind, row.source) == (GROUPS, "probe")]
    kept = set(_thinned(row.step for row in rows))
    statistics = list(dict.fromkeys(row.statistic for row in rows))
    points: dict[tuple[int, int, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.step in kept:
            points[row.step, row.layer, row.name][row.statistic] = f"{row.value:.4g}"
    header = ["step", "layer", "name", *statistics]
    return [header, *([str(word) for word in key] + [values.get(name, "") for name in statistics] for key, values in points.items())]


def _thin_metrics(path: Path) -> list[list[str]]:
    """Return the rows of a record's metrics.csv: losses averaged between the kept steps, validation metrics as they are."""
    rows = [row for row in _read_rows(path) if row["name"].startswith(_METRICS)]
    values: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        values[row["name"]].append((int(row["step"]), float(row["value"])))
    thin = [["step", "name", "value"]]
    for name, points in values.items():
        if name.startswith("val/"):
            thin += [[str(step), name, f"{value:.8g}"] for step, value in points]
            continue
        for part in np.array_split(np.array(points), min(_POINTS, len(points))):
            thin.append([str(int(part[-1, 0])), name, f"{part[:, 1].mean():.6g}"])
    return thin


def _curves(points: dict[Any, list[tuple[int, float]]]) -> dict[Any, Curve]:
    def curve(values: list[tuple[int, float]]) -> Curve:
        steps, numbers = zip(*values, strict=True)
        return Curve(np.array(steps), np.array(numbers))

    return {key: curve(values) for key, values in points.items()}


def _read_dynamics(path: Path) -> Dynamics:
    points: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for row in _read_rows(path):
        for statistic, value in row.items():
            if statistic not in ("step", "layer", "name") and value:
                points[statistic, int(row["layer"])].append((int(row["step"]), float(value)))
    dynamics: Dynamics = defaultdict(list)
    for (statistic, _), curve in sorted(_curves(points).items()):
        dynamics[statistic].append(curve)
    return dict(dynamics)


def _read_metrics(path: Path) -> dict[str, Curve]:
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in _read_rows(path):
        points[row["name"]].append((int(row["step"]), float(row["value"])))
    return _curves(points)
