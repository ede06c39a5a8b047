"""Read and write results.json, the results of a run or a benchmark, as strict JSON.

JSON has no infinity, but the PSNR of two equal images is infinite. It is written as the string "Infinity" and read back as a number.
Files of earlier versions contain the bare word that Python's json module writes by default; it is read too.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from irformer.core.files import write_atomically
from irformer.errors import UserError
from irformer.metrics import METRICS, MetricTraits


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("NaN, expected a number")
    return value


_Metrics = Annotated[dict[str, Annotated[float, AfterValidator(_not_nan)]], Field(min_length=1)]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Set(_Lenient):
    metrics: _Metrics
    per_image: Annotated[dict[str, _Metrics], Field(min_length=1)]


class _Protocol(_Lenient):
    metrics: list[str]


class _Traits(_Lenient):
    higher_is_better: bool
    digits: Annotated[int, Field(ge=0, le=10)]
    unit: str


class _Record(_Lenient):
    task: str
    protocol: _Protocol
    metrics: dict[str, _Traits] = {}  # missing in files of earlier versions
    test_sets: dict[str, _Set]


def read_results(path: Path) -> dict[str, Any]:
    """Read the results.json of a run or a benchmark.

    Returns:
        The record (see `irformer.evaluation.evaluate.results_record`); every metric is a finite or infinite number.

    Raises:
        UserError: the file cannot be read, is not JSON, lacks a key, or contains a metric that is not a number.
    """
    try:
        record = _Record.model_validate(json.loads(path.read_text(encoding="utf-8"))).model_dump(exclude_unset=True)
        for name, part in record["test_sets"].items():
            for image, metrics in part["per_image"].items():
                if missing := part["metrics"].keys() - metrics.keys():
                    raise ValueError(f"test_sets.{name}.per_image.{image} has no {', '.join(sorted(missing))}")
        return record
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = f"{key}: {first['msg'].removeprefix('Value error, ')}" if key else first["msg"]
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise UserError(f"{path}: cannot be read ({' '.join(reason.split())}); expected the results.json of a run or a benchmark")


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
    """Write a record atomically as strict JSON."""
    text = json.dumps(strict(record), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def strict(value: Any) -> Any:
    """Return a copy of plain values for strict JSON: infinite numbers become the strings "Infinity" and "-Infinity"."""
    if isinstance(value, Mapping):
        return {key: strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value
