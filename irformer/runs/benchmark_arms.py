"""Arms for a comparison from the folders of benchmarks: each network or baseline is an arm; runs that differ only in the seed share one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irformer.config.saved import CONFIG
from irformer.errors import UserError
from irformer.evaluation.departures import in_words
from irformer.evaluation.results import Record, SetResult, read_records
from irformer.runs.arms import Arm, Config, FinishedRun, arm_labels, flat_config, read_config, same_config

UNSEEDED = -1
"""The seed of an arm that has none, such as a weights file or a baseline."""


@dataclass(frozen=True)
class BenchmarkArms:
    """The arms of some benchmarks, and what readers should know."""

    arms: list[Arm] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_benchmarks(folders: Sequence[Path]) -> list[Path]:
    """Return the results.json of benchmarks in some folders and their subfolders; those beside a config.yaml belong to runs.

    Raises:
        UserError: a folder does not exist.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the folder of a sweep, a run or a benchmark")
        for file in sorted(folder.rglob("results.json")):
            if not (file.parent / CONFIG).is_file():
                found.setdefault(file.resolve(), file)
    return list(found.values())


@dataclass(frozen=True)
class _Measured:
    """A network or baseline with its results on all tasks.

    Args:
        folder: the folder of the benchmark.
        record: the record of the first task.
        sets: all results, by the name of the set; with the task if there are several.
        config: configuration of the run that trained it without the seed, or None.
        seed: the seed of this run.
    """

    folder: Path
    record: Record
    sets: dict[str, SetResult]
    config: Config | None = None
    seed: int = UNSEEDED

    @property
    def label(self) -> str:
        precision = self.record.protocol.get("precision")
        departures = [*([str(precision)] if precision else []), *in_words(self.record.departures)]
        return ", ".join([self.record.label or self.record.checkpoint, *departures])


def read_benchmarks(files: Sequence[Path]) -> BenchmarkArms:
    """Read benchmarks as arms. The same network in several benchmarks is one arm; test sets of several tasks are named with their task.

    Args:
        files: their results.json (`find_benchmarks`).
    """
    found = BenchmarkArms()
    records: list[tuple[Path, Record]] = []
    for file in files:
        try:
            records += [(file.parent, record) for record in read_records(file)]
        except UserError as error:
            found.notes.append(f"Skipped: {error}.")
    labels = {record.task_label for _, record in records}
    measured: dict[Any, _Measured] = {}
    for folder, record in records:
        weights = record.further.get("sha256") or record.checkpoint
        network = (weights, str(record.further.get("model_overrides")), None if record.label else folder)
        key = (*network, str(record.departures), record.protocol.get("precision"), _padding(record))
        sets = {name if len(labels) == 1 else f"{name} ({record.task_label})": result for name, result in record.test_sets.items()}
        known = measured.get(key)
        measured[key] = _Measured(folder, record, sets) if known is None else replace(known, sets=_joined(known.sets, sets))
        found.notes.extend(
            f"{record.label}, {name}: not compared, because {len(result.non_finite)} of {result.images} images have NaN or infinite values."
            for name, result in sets.items()
            if result.non_finite
        )
    found.arms.extend(_arms([_with_seed(part) for part in measured.values()]))
    return found


def _padding(record: Record) -> str | None:
    """Return the padding before a network; None for a baseline, which needs none."""
    return record.protocol.get("padding") if record.further.get("sha256") else None


def _joined(first: dict[str, SetResult], second: dict[str, SetResult]) -> dict[str, SetResult]:
    """Return the sets of both; where both have one, the result with more metrics, or the second one."""
    kept = {name: result for name, result in first.items() if name in second and len(result.metrics) > len(second[name].metrics)}
    return {**first, **second, **kept}


def _with_seed(part: _Measured) -> _Measured:
    """Add the configuration and the seed of the run that trained a network, if its folder is still there."""
    file = Path(part.record.checkpoint) / CONFIG
    if not part.record.further.get("sha256") or not file.is_file():
        return part
    try:
        config = flat_config(read_config(file))
    except UserError:
        return part
    seed = config.pop("seed", None)
    return replace(part, config=config, seed=seed) if isinstance(seed, int) else part


def _arms(measured: Sequence[_Measured]) -> list[Arm]:
    groups: list[list[_Measured]] = []
    for part in measured:
        for group in groups:
            if _differ_only_in_seed(group, part):
                group.append(part)
                break
        else:
            groups.append([part])
    configs: list[Config] = []
    for group in groups:
        if len(group) > 1 and not any(same_config(_config(group), config) for config in configs):
            configs.append(_config(group))
    named = list(zip(configs, arm_labels(configs), strict=True)) if configs else []
    arms = []
    taken: set[str] = set()
    for group in groups:
        first = group[0]
        name = next((label for config, label in named if len(group) > 1 and same_config(config, _config(group))), first.label)
        label = _distinct(name, first, taken)
        taken.add(label)
        seeds = {part.seed if len(group) > 1 else UNSEEDED: part for part in group}
        runs = {seed: FinishedRun(part.folder, seed, _config(group), _as_dict(part)) for seed, part in sorted(seeds.items())}
        arms.append(Arm(label, _config(group), runs))
    return arms


def _distinct(label: str, part: _Measured, taken: set[str]) -> str:
    """Extend a label that is taken."""
    padding = _padding(part.record)
    more = [f", padding {padding}"] if padding else []
    more += [f" ({part.folder})", *(f" ({part.folder}, {number})" for number in range(2, len(taken) + 3))]
    return next(extended for extended in (label, *(f"{label}{end}" for end in more)) if extended not in taken)


def _differ_only_in_seed(group: Sequence[_Measured], part: _Measured) -> bool:
    first = group[0]
    if first.config is None or part.config is None or part.seed in (other.seed for other in group):
        return False
    return same_config(first.config, part.config) and _rules(first) == _rules(part)


def _rules(part: _Measured) -> tuple[dict[str, Any], str | None, str | None]:
    """Return what else than the network changes the numbers."""
    return part.record.departures, part.record.protocol.get("precision"), _padding(part.record)


def _config(group: Sequence[_Measured]) -> Config:
    first = group[0]
    config = first.config if first.config is not None and len(group) > 1 else {"checkpoint": first.label}
    precision = first.record.protocol.get("precision")
    departures = {**first.record.departures, **({"precision": precision} if precision else {})}
    return {**config, **{f"departures.{key}": value for key, value in departures.items()}}


def _as_dict(part: _Measured) -> dict[str, Any]:
    record = replace(part.record, test_sets={name: replace(result, name=name) for name, result in part.sets.items()})
    values = record.as_dict()
    # Infinite metrics are text in files.
    for name, result in part.sets.items():
        values["test_sets"][name] |= {"metrics": result.metrics, "per_image": result.per_image}
    return values
