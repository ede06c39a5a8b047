"""What a benchmark measures: which network on which task and test sets. Every mistake is found here, before anything is measured."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from irformer.benchmarks.subjects import Subject, load_subjects
from irformer.config.compose import options, trust_of, with_named_norms
from irformer.config.image_sets import find_test_sets
from irformer.config.metrics import WEIGHTS
from irformer.config.tasks import build_task, named_task, recorded_task
from irformer.core.trust import Trust
from irformer.core.version import __version__
from irformer.data.test_sets import TestSet
from irformer.errors import UserError, naming
from irformer.evaluation.departures import Departures
from irformer.evaluation.reduced_precision import calibration_images
from irformer.evaluation.restorers import Restorer, baseline
from irformer.evaluation.results import Record, SetResult
from irformer.precision.reduced import BITS, Reduced, in_precision
from irformer.tasks.task import Task

_log = logging.getLogger(__name__)

DEFAULT_TASK = "sr_x2"
"""The task of baselines if neither the user nor a network names one."""


@dataclass(frozen=True)
class Evaluation:
    """A network or baseline on one task and its test sets.

    Args:
        subject: the network or baseline.
        task: the task.
        test_sets: the test sets.
        restorer: applies the subject to images.
        departures: departures from restoring each image once and as a whole.
        reduced: the network in a precision other than float32, or None.
        extra_metrics: the `metrics` section of the configuration.
    """

    subject: Subject
    task: Task
    test_sets: Sequence[TestSet]
    restorer: Restorer
    departures: Mapping[str, Any]
    reduced: Reduced | None
    extra_metrics: Mapping[str, Any]

    def record(self, results: Sequence[SetResult] = ()) -> Record:
        """Return the record of the results on some test sets."""
        rules = self.reduced.rules if self.reduced is not None else {}
        further = {
            **self.subject.identity,
            **({"extra_metrics": dict(self.extra_metrics)} if self.extra_metrics else {}),
            "degradation": json.loads(
                json.dumps({"class": type(self.task.degradation).__name__, **vars(self.task.degradation)}, default=str)
            ),
            "environment": {"irformer": __version__, "torch": str(torch.__version__)},
        }
        return Record(
            self.subject.given,
            self.subject.label,
            self.task.name,
            self.task.label,
            {**self.task.protocol.as_dict(), "padding": self.restorer.padding, **rules},
            dict(self.departures),
            {name: metric.traits for name, metric in self.task.metrics.items()},
            {result.name: result for result in results},
            further,
        )


@dataclass(frozen=True)
class Workload:
    """The evaluations of a benchmark, and why others are skipped, one line each."""

    evaluations: list[Evaluation]
    skipped: list[str]


def plan_workload(cfg: DictConfig, overrides: Sequence[str], device: torch.device) -> Workload:
    """Decide what a benchmark measures.

    Without `task` and `tasks`, a network is measured on the task that it was trained for, and a baseline on the tasks of all networks.

    Args:
        cfg: the configuration of scripts/benchmark.py.
        overrides: overrides of the configuration from the command line, which also apply to the tasks of networks.
        device: device for the networks.

    Raises:
        UserError: a file, task, set or key is wrong, or nothing can be measured.
    """
    if cfg.tasks is not None and task_is_given(overrides):
        raise UserError("task= and tasks= are both given; give only one of them")
    departures = Departures(cfg.ensemble, cfg.tile, cfg.overlap, cfg.memory)
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    trust = trust_of(cfg)
    subjects = load_subjects(_given(cfg.checkpoint), with_named_norms(model), trust, device)
    _require_networks(cfg, departures, subjects)
    extra_metrics = _without_folders(OmegaConf.to_container(cfg.metrics, resolve=True))
    if cfg.precision in ("fp16", "fp16_safe") and device.type == "cpu":
        _log.warning("precision=%s: most CPUs compute in float16 several times more slowly than in float32", cfg.precision)
    evaluations: list[Evaluation] = []
    skipped: list[str] = []
    for task, candidates in _tasks(cfg, overrides, subjects, trust):
        faults = {subject.given: _misfit(subject, task) for subject in candidates}
        skipped += [fault for fault in faults.values() if fault is not None]
        fitting = [subject for subject in candidates if faults[subject.given] is None]
        test_sets = find_test_sets(cfg.test_sets, Path(cfg.paths.data), task) if fitting else []
        for subject in fitting:
            reduced = _reduced(subject, cfg.precision, task, test_sets)
            restorer = _restorer(subject, reduced, departures, task, device)
            named = departures.as_dict() if subject.network is not None else {}
            evaluations.append(Evaluation(subject, task, test_sets, restorer, named, reduced, extra_metrics))
    if not evaluations:
        raise UserError(skipped[0])
    order = {subject.given: i for i, subject in enumerate(subjects)}
    evaluations.sort(key=lambda evaluation: order[evaluation.subject.given])  # the order in files is that of the user
    return Workload(evaluations, skipped)


def _without_folders(metrics: Any) -> dict[str, Any]:
    """Return the `metrics` section without the places of weights, which do not change results."""
    nodes = {name: node for name, node in metrics.items() if name != WEIGHTS}
    return {
        name: {key: value for key, value in node.items() if key != WEIGHTS} if isinstance(node, dict) else node
        for name, node in nodes.items()
    }


def task_is_given(overrides: Sequence[str]) -> bool:
    """Return whether the command line selects a task by `task=NAME`."""
    return any(override.lstrip("+").startswith(("task=", "task@")) for override in overrides)


def _given(checkpoint: Any) -> dict[str, str | None]:
    """Return the labels of checkpoints, or None, by path: from one path, a list, or a mapping of labels to paths."""
    if isinstance(checkpoint, str):
        return {checkpoint: None}
    values: Any = OmegaConf.to_container(checkpoint, resolve=True)
    pairs = [(path, None) for path in values] if isinstance(values, list) else [(path, label) for label, path in values.items()]
    if twice := next((path for i, (path, _) in enumerate(pairs) if path in [other for other, _ in pairs[:i]]), None):
        raise UserError(f"checkpoint: {twice} is listed twice, expected each checkpoint once")
    return dict(pairs)


def _require_networks(cfg: DictConfig, departures: Departures, subjects: Sequence[Subject]) -> None:
    """Check that keys that only concern networks have one to concern."""
    if any(subject.network is not None for subject in subjects):
        return
    names = ", ".join(subject.given for subject in subjects)
    if cfg.precision != "fp32":
        raise UserError(f"precision={cfg.precision}: {names} has no network to compute in it; expected precision=fp32")
    for key, value in departures.as_dict().items():
        raise UserError(f"{key}={value}: {names} has no network that it applies to; remove the key")


def _tasks(cfg: DictConfig, overrides: Sequence[str], subjects: Sequence[Subject], trust: Trust) -> list[tuple[Task, list[Subject]]]:
    """Return each task with the subjects that are to be measured on it."""

    def built(node: DictConfig) -> Task:
        return build_task(_with_padding(node, cfg.padding), cfg.metrics)

    if cfg.tasks is not None or task_is_given(overrides):
        nodes = [cfg] if cfg.tasks is None else [named_task(name, overrides) for name in cfg.tasks]
        return [(built(node.task), list(subjects)) for node in nodes]
    networks = [subject for subject in subjects if subject.network is not None]
    if not networks:
        return [(built(recorded_task(DEFAULT_TASK, None, overrides).task), list(subjects))]
    tasks: dict[str, tuple[Task, list[Subject]]] = {}
    for subject in networks:
        with naming(f"{subject.file}: the task in its record "):
            trust.require(subject.task_config, "task")
        task = built(_trained_task(subject, overrides).task)
        key = json.dumps([task.label, task.protocol.as_dict(), vars(task.degradation)], default=str)
        tasks.setdefault(key, (task, []))[1].append(subject)
    for task, members in tasks.values():
        members += [subject for subject in subjects if subject.network is None and _misfit(subject, task) is None]
    unused = [subject for subject in subjects if not any(subject in members for _, members in tasks.values())]
    if unused:  # reported as skipped
        next(iter(tasks.values()))[1].extend(unused)
    return list(tasks.values())


def _with_padding(node: DictConfig, padding: str | None) -> DictConfig:
    if padding is None:
        return node
    changed = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    assert isinstance(changed, DictConfig)
    changed.protocol.padding = padding
    return changed


def _trained_task(subject: Subject, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration with the task that a network was trained for, and the overrides of the command line."""
    if subject.task is not None:
        return recorded_task(subject.task, subject.task_config, overrides)
    network: Any = subject.network
    name = f"sr_x{network.scale}"
    if network.in_channels == 3 and name in options("task"):
        return recorded_task(name, None, overrides)
    raise UserError(
        f"checkpoint={subject.given} does not record its task (scale {network.scale}, {network.in_channels} channels): "
        "give task=NAME, such as task=denoise_color_25"
    )


def _misfit(subject: Subject, task: Task) -> str | None:
    """Return why a subject cannot be measured on a task, or None if it can."""
    network: Any = subject.network
    if network is None:
        if subject.given == baseline(task)[0]:
            return None
        if subject.given == "bicubic":
            return f"checkpoint=bicubic upscales images, but {task.name} keeps their size; checkpoint=degraded evaluates its input"
        return f"checkpoint=degraded: the input of {task.name} is smaller than its output; checkpoint=bicubic upscales it"
    if (network.scale, network.in_channels) == (task.scale, task.channels):
        return None
    return (
        f"checkpoint={subject.given} was trained for {subject.task or 'a task'} (scale {network.scale}, {network.in_channels} channels), "
        f"and task={task.name} needs scale {task.scale}, {task.channels} channels"
    )


def _reduced(subject: Subject, precision: str, task: Task, test_sets: Sequence[TestSet]) -> Reduced | None:
    if subject.network is None or precision == "fp32":
        return None
    return in_precision(subject.network, precision, calibration_images(task, test_sets) if precision in BITS else None)


def _restorer(subject: Subject, reduced: Reduced | None, departures: Departures, task: Task, device: torch.device) -> Restorer:
    if subject.network is None:
        return baseline(task)[1]
    network = reduced.network if reduced is not None else subject.network
    with naming(f"checkpoint={subject.given}: "):
        return departures.restorer(network, task.protocol.padding, device)
