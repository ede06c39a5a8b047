"""Results of evaluations: what they contain, and results.json, which runs and benchmarks write as strict JSON.

A file holds one record, or several under `results` if it is a benchmark of several networks or tasks:

    {"version": 2, "checkpoint": "...", "task": "sr_x2", "protocol": {"border": 2, ...}, "metrics": {"psnr_y": {...}},
     "test_sets": {"Set5": {"images": 5, "metrics": {"psnr_y": 33.673}, "per_image": {"baby": {"psnr_y": ...}, ...}}}}

Version 2 adds `version`, `results`, `departures`, and, in the test sets of benchmarks, `costs`, `non_finite` and `fingerprint`. Files
without a version are read as well.

JSON has no infinity, but the PSNR of two equal images is infinite. It is written as the string "Infinity" and read back as a number.
Files of earlier versions contain the bare word that Python's json module writes by default; it is read too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from irformer.core.files import write_atomically
from irformer.errors import UserError
from irformer.metrics import METRICS, MetricTraits

VERSION = 2
"""The version of results.json that is written."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class ImageCost:
    """What it took to restore an image.

    Args:
        height: height of the restored image in pixels.
        width: its width.
        seconds: time for restoring it, without reading and measuring.
        peak_memory: largest memory that was allocated meanwhile, in bytes: on a GPU by PyTorch, otherwise by the process beyond what it
            held before; None if the system does not tell.
        tile: side of the tiles in input pixels; None if the image was restored as a whole.
    """

    height: int
    width: int
    seconds: float
    peak_memory: int | None = None
    tile: int | None = None


@dataclass(frozen=True)
class SetResult:
    """The metrics of each image of a test set, in order.

    Args:
        name: name of the set.
        lq_source: where the degraded images come from.
        remarks: what readers of the results should know.
        per_image: the metrics by image; images whose restored values are not all finite have none.
        precision: what a precision other than float32 did to this set, see `irformer.evaluation.reduced_precision`; empty for float32.
        non_finite: how many NaN or infinite values the restored image has, for each image that has some.
        costs: time and memory by image; empty if they were not measured.
        fingerprint: checksum of the names and files of the images; empty if it was not computed.
    """

    name: str
    lq_source: str
    remarks: list[str] = field(default_factory=list)
    per_image: dict[str, Metrics] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    non_finite: dict[str, int] = field(default_factory=dict)
    costs: dict[str, ImageCost] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def images(self) -> int:
        """Number of images, with those that have no metrics."""
        return len(self.per_image) + len(self.non_finite)

    @property
    def metrics(self) -> Metrics:
        """Means over the images, as in papers: PSNR is averaged in dB, not computed from pooled errors.

        Empty if a restored image has values that are not finite: a mean over the others would look better than the network is.
        """
        rows = list(self.per_image.values())
        if self.non_finite or not rows:
            return {}
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for results.json; `strict` converts infinite metrics."""
        values: dict[str, Any] = {
            "images": self.images,
            "lq": self.lq_source,
            "remarks": self.remarks,
            "metrics": self.metrics,
            "per_image": self.per_image,
            "precision": self.precision,
            "non_finite": self.non_finite,
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "fingerprint": self.fingerprint,
        }
        return strict({key: value for key, value in values.items() if value or key not in _IF_ANY})


_IF_ANY = ("precision", "non_finite", "costs", "fingerprint")


@dataclass(frozen=True)
class Record:
    """The results of a network or baseline on the test sets of one task.

    Args:
        checkpoint: the run's folder, weights file or baseline, as the user named it.
        label: its name in tables; empty in records of runs.
        task: name of the task.
        task_label: name of the task with its changes.
        protocol: the evaluation rules in force, with the precision if it is not float32.
        departures: departures from restoring each image as a whole, once (`irformer.evaluation.departures`).
        traits: traits of the metrics by name.
        test_sets: results by name of the test set.
        further: all other keys of the record, such as `sha256` or `step`.
    """

    checkpoint: str
    label: str
    task: str
    task_label: str
    protocol: dict[str, Any]
    departures: dict[str, Any]
    traits: dict[str, MetricTraits]
    test_sets: dict[str, SetResult]
    further: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for results.json, without the version."""
        optional = {"label": self.label, "departures": self.departures}
        return {
            "checkpoint": self.checkpoint,
            **{key: value for key, value in optional.items() if value},
            "task": self.task,
            "task_label": self.task_label,
            **self.further,
            "protocol": self.protocol,
            "metrics": {name: asdict(traits) for name, traits in self.traits.items()},
            "test_sets": {name: result.as_dict() for name, result in self.test_sets.items()},
        }


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("NaN, expected a number")
    return value


_Number = Annotated[float, AfterValidator(_not_nan)]
_Count = Annotated[int, Field(ge=0)]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Cost(_Lenient):
    height: _Count
    width: _Count
    seconds: Annotated[float, Field(ge=0)]
    peak_memory: _Count | None = None
    tile: _Count | None = None


class _Set(_Lenient):
    metrics: dict[str, _Number]
    per_image: dict[str, Annotated[dict[str, _Number], Field(min_length=1)]]
    lq: str = ""
    remarks: list[str] = []
    precision: dict[str, Any] = {}
    non_finite: dict[str, _Count] = {}
    costs: dict[str, _Cost] = {}
    fingerprint: str = ""

    @model_validator(mode="after")
    def _require_images(self) -> "_Set":
        # Written by hand, so that the messages name the key.
        if not self.per_image and not self.non_finite:
            raise ValueError("per_image: Dictionary should have at least 1 item")
        if not self.metrics and not self.non_finite:
            raise ValueError("metrics: Dictionary should have at least 1 item")
        for image, metrics in self.per_image.items():
            if missing := self.metrics.keys() - metrics.keys():
                raise ValueError(f"per_image.{image} has no {', '.join(sorted(missing))}")
        return self


class _Protocol(_Lenient):
    metrics: list[str]


class _Traits(_Lenient):
    higher_is_better: bool
    digits: Annotated[int, Field(ge=0, le=10)]
    unit: str


class _Record(_Lenient):
    task: str
    protocol: _Protocol
    checkpoint: str = ""
    label: str = ""
    task_label: str = ""
    departures: dict[str, Any] = {}
    metrics: dict[str, _Traits] = {}  # missing in files of earlier versions
    test_sets: dict[str, _Set]


class _Several(_Lenient):
    results: Annotated[list[_Record], Field(min_length=1)]


def read_results(path: Path) -> dict[str, Any]:
    """Read the results.json of a run, or of a benchmark of one network on one task, as plain values.

    Returns:
        The record (see `irformer.evaluation.evaluate.results_record`); every metric is a finite or infinite number.

    Raises:
        UserError: the file cannot be read, is not JSON, lacks a key, or contains a metric that is not a number or several records.
    """
    records = _read(path)
    if len(records) > 1:
        raise UserError(f"{path}: contains {len(records)} records, of several networks or tasks; expected the results.json of a run")
    return {key: value for key, value in records[0].model_dump(exclude_unset=True).items() if key != "version"}


def read_records(path: Path) -> list[Record]:
    """Read the results.json of a run or a benchmark: one record for each network, task and protocol.

    Raises:
        UserError: the file cannot be read, is not JSON, lacks a key, or contains a metric that is not a number.
    """
    return [_record(part) for part in _read(path)]


def _read(path: Path) -> list[_Record]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("version", 1) if isinstance(content, dict) else 1
        if not isinstance(version, int) or version > VERSION:
            raise ValueError(f"version {version}, written by a later version of irformer; this one reads up to {VERSION}")
        several = isinstance(content, dict) and "results" in content
        return _Several.model_validate(content).results if several else [_Record.model_validate(content)]
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        between = "." if message.startswith(("per_image", "metrics")) else ": "
        reason = f"{key}{between}{message}" if key else message
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise UserError(f"{path}: cannot be read ({' '.join(reason.split())}); expected the results.json of a run or a benchmark")


def _record(part: _Record) -> Record:
    values = part.model_dump()
    sets = {
        name: SetResult(
            name,
            found.lq,
            found.remarks,
            found.per_image,
            found.precision,
            found.non_finite,
            {image: ImageCost(cost.height, cost.width, cost.seconds, cost.peak_memory, cost.tile) for image, cost in found.costs.items()},
            found.fingerprint,
        )
        for name, found in part.test_sets.items()
    }
    further = {key: value for key, value in (part.model_extra or {}).items() if key != "version"}
    label = part.task_label or part.task
    traits = metric_traits(values)
    return Record(part.checkpoint, part.label, part.task, label, values["protocol"], part.departures, traits, sets, further)


def metric_traits(record: Mapping[str, Any]) -> dict[str, MetricTraits]:
    """Return direction, decimals and unit of each metric of a record by name, without importing any metric's code.

    Records of earlier versions do not contain traits. Their built-in metrics are looked up by name; other metrics are omitted.
    """
    names = dict.fromkeys(name for part in record["test_sets"].values() for name in part["metrics"])
    built_in = {name: METRICS[name].traits for name in names if name in METRICS}
    recorded = record.get("metrics", {})
    return built_in | {name: MetricTraits(part["higher_is_better"], part["digits"], part["unit"]) for name, part in recorded.items()}


def agreed_traits(metric: str, records: Mapping[Path, Mapping[str, Any]]) -> MetricTraits | None:
    """Return the traits of a metric from several records, or None if no record contains them.

    Args:
        metric: the metric's name.
        records: records by the folder of their run.

    Raises:
        UserError: two records disagree on the direction.
    """
    known = {folder: traits[metric] for folder, record in records.items() if metric in (traits := metric_traits(record))}
    directions = {traits.higher_is_better: folder for folder, traits in known.items()}
    if len(directions) > 1:
        raise UserError(
            f"{metric}: higher is better in {directions[True]} and lower is better in {directions[False]}; expected runs that agree"
        )
    return next(iter(known.values()), None)


def write_results(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, as plain values, atomically as strict JSON."""
    text = json.dumps(strict({"version": VERSION, **record}), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records atomically as strict JSON: one as it is, several as a list."""
    parts = [record.as_dict() for record in records]
    write_results(path, parts[0] if len(parts) == 1 else {"results": parts})


def strict(value: Any) -> Any:
    """Return a copy of plain values for strict JSON: infinite numbers become the strings "Infinity" and "-Infinity"."""
    if isinstance(value, Mapping):
        return {key: strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value
