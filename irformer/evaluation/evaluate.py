"""Evaluate restorers on test sets; validation, the end of a run and scripts/benchmark.py all use this module."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from irformer.data.test_sets import TestPair, TestSet
from irformer.evaluation.restorers import NonFiniteOutputError, Restorer
from irformer.evaluation.results import Metrics, SetResult
from irformer.metrics import METRICS, measure
from irformer.tasks.task import Task

_log = logging.getLogger(__name__)


def evaluate_image(restorer: Restorer, pair: TestPair, task: Task) -> tuple[Metrics, NDArray[np.uint8]]:
    """Restore one degraded image and compare it with the clean image.

    All metrics that irformer reports come from this function.

    Returns:
        The task's metrics (PSNR in dB, SSIM in [-1, 1]) and the restored image [H, W, C], uint8.

    Raises:
        NonFiniteOutputError: the restorer's output is not finite; the message names the image.
    """
    try:
        restored = restorer(pair.lq)
    except NonFiniteOutputError as error:
        raise NonFiniteOutputError(f"{pair.name}: {error}", error.count) from None
    return measure(restored, pair.hq, task.metrics, task.protocol.border, task.protocol.luma or "exact"), restored


def evaluate(restorer: Restorer, test_set: TestSet, on_image: Callable[[str], None] | None = None) -> SetResult:
    """Restore and evaluate every image of a test set.

    Args:
        restorer: maps degraded to restored images.
        test_set: the images, with their task and its protocol.
        on_image: called with the name of each finished image, to show progress.
    """
    result = SetResult(test_set.name, test_set.lq_source, test_set.remarks)
    for pair in test_set:
        try:
            result.per_image[pair.name], _ = evaluate_image(restorer, pair, test_set.task)
        except NonFiniteOutputError as error:
            raise NonFiniteOutputError(f"{test_set.name}/{error}", error.count) from None
        if on_image:
            on_image(pair.name)
    return result


def evaluate_sets(restorer: Restorer, test_sets: list[TestSet]) -> list[SetResult]:
    """Evaluate a restorer on test sets, with a progress bar for each on a terminal, or a line for each in a log file."""
    results = []
    for test_set in test_sets:
        started = time.monotonic()
        with tqdm(total=len(test_set), desc=test_set.name, unit="image", leave=False, disable=None) as bar:
            results.append(evaluate(restorer, test_set, lambda _name, bar=bar: bar.update()))  # type: ignore[misc]
        if bar.disable:
            _log.info("measured %s: %d images in %.0f s", test_set.name, len(test_set), time.monotonic() - started)
    return results


def results_record(checkpoint: str, task: Task, padding: str, results: Sequence[SetResult]) -> dict[str, Any]:
    """Return the content of a run's results.json: checkpoint, task, protocol, metric traits and all results.

    Args:
        checkpoint: the evaluated checkpoint or baseline.
        task: the task.
        padding: the restorer's padding; the protocol may leave it to the network.
        results: the result of each test set.
    """
    return {
        "checkpoint": checkpoint,
        "task": task.name,
        "task_label": task.label,
        "protocol": {**task.protocol.as_dict(), "padding": padding},
        "metrics": {name: asdict(metric.traits) for name, metric in task.metrics.items()},
        "test_sets": {result.name: result.as_dict() for result in results},
    }


@cache
def _published() -> list[dict[str, Any]]:
    return json.loads((Path(__file__).parent / "published.json").read_text())


@dataclass(frozen=True)
class PublishedRow:
    """A published result: model, training data, metrics on each test set, and differences between its protocol and the task's."""

    model: str
    train_data: str | None
    source: str
    differences: tuple[str, ...]
    test_sets: dict[str, Metrics]


# Rules that define the degradation level: rows at another level are omitted, while rows under any other differing rule are marked.
_LEVELS = ("sigma", "quality")
# Rules that are not compared: each network was evaluated with the padding of its own test code.
_NOT_COMPARED = ("padding", "metrics")


def published_rows(task: Task, test_sets: Sequence[str]) -> list[PublishedRow]:
    """Return the published results for a task on at least one of the test sets, in order of publication.

    A blind task is compared with the blind rows at its level. A task whose degradation differs from configs/task has no published rows.
    """
    own = {key.removeprefix("protocol."): there for key, (there, _) in task.changes.items()}
    if any(not key.startswith("protocol.") for key in task.changes):
        return []
    own = {name: there for name, there in own.items() if name not in _NOT_COMPARED and there is not None}
    rows: dict[tuple[str, str | None, str, tuple[str, ...]], PublishedRow] = {}
    for entry in _published():
        if entry["task"] != task.name or entry["test_set"] not in test_sets:
            continue
        rules = {**own, **entry["protocol"]}  # a rule that the row omits is the task's default
        differing = {name: value for name, value in rules.items() if getattr(task.protocol, name) not in (None, value)}
        if any(name in differing for name in _LEVELS):
            continue
        differences = tuple(f"{name} {value}, here {getattr(task.protocol, name)}" for name, value in differing.items())
        key = (entry["model"], entry.get("train_data"), entry["source"], differences)
        row = rows.setdefault(key, PublishedRow(*key, test_sets={}))
        row.test_sets[entry["test_set"]] = {name: value for name, value in entry.items() if name in METRICS}
    return list(rows.values())
