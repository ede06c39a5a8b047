"""Evaluate a checkpoint on test sets: python scripts/benchmark.py checkpoint=PATH|bicubic|degraded [task=sr_x2] 'test_sets=[Set5]'."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from irformer.commands.common import command, device
from irformer.commands.results_folder import ResultsFolder
from irformer.config.compose import options, trust_of, with_named_norms
from irformer.config.image_sets import find_test_sets
from irformer.config.tasks import build_task, recorded_task
from irformer.core.files import sha256
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate_sets, results_record
from irformer.evaluation.reduced_precision import calibration_images, evaluate_in_precision
from irformer.evaluation.restorers import NetworkRestorer, Restorer, baseline
from irformer.precision.reduced import BITS, Reduced, in_precision
from irformer.reporting.page import benchmark_table, readable_console
from irformer.tasks.task import Task
from irformer.weights.checkpoints import Checkpoint, load_checkpoint

_log = logging.getLogger(__name__)

_WITHOUT_NETWORK = ("bicubic", "degraded")


def benchmark() -> None:
    """Evaluate a checkpoint on test sets: python scripts/benchmark.py checkpoint=PATH|bicubic|degraded [task=sr_x2] 'test_sets=[Set5]'."""
    command(_benchmark, "benchmark")


@dataclass(frozen=True)
class _Subject:
    """What is evaluated.

    Args:
        restorer: the network or baseline.
        title: its name in tables.
        task: the task.
        sha256: checksum of the weights file; None without a network.
        model: overrides of the model configuration in the weights file.
        reduced: the network in a precision other than float32; None in float32 or without a network.
    """

    restorer: Restorer
    title: str
    task: Task
    sha256: str | None
    model: dict[str, Any]
    reduced: Reduced | None = None


def _benchmark(cfg: DictConfig) -> None:
    checkpoint = str(cfg.checkpoint)
    subject = _without_network(cfg, checkpoint) if checkpoint in _WITHOUT_NETWORK else _with_network(cfg, checkpoint)
    task = subject.task
    test_sets = find_test_sets(cfg.test_sets, Path(cfg.paths.data), task)
    if cfg.precision != "fp32":
        subject = _in_precision(subject, cfg.precision, test_sets)
    rules = subject.reduced.rules if subject.reduced is not None else {}

    def record(results: list[Any]) -> dict[str, Any]:
        measured = results_record(checkpoint, task, subject.restorer.padding, results, rules)
        extra_metrics: Any = OmegaConf.to_container(cfg.metrics, resolve=True)
        extra = {"extra_metrics": extra_metrics} if extra_metrics else {}
        return {"sha256": subject.sha256, "model_overrides": subject.model, **extra, **measured}

    folder = ResultsFolder(_folder(cfg, subject, record([])), record([]))
    with folder.reserved({test_set.name: {pair.name for pair in test_set.pairs} for test_set in test_sets}):
        if subject.reduced is not None:
            results = evaluate_in_precision(subject.reduced, test_sets)
        else:
            results = evaluate_sets(subject.restorer, test_sets)
        console = readable_console()
        benchmark_table(task, {subject.title: results}, precision=rules).show(console)
        file = folder.add(record(results))
    console.print(f"results: {file}", highlight=False, markup=False, soft_wrap=True)


def _folder(cfg: DictConfig, subject: _Subject, identity: dict[str, Any]) -> Path:
    """Return the folder of results.json: the folder given by the user, or a subfolder such as `first-sr_x2-1a2b3c4d`.

    The name depends on the weights, changes to the network, the task, the protocol and the extra metrics, but not on the file's path. In a
    multirun, a folder given by the user contains one such folder for each job.
    """
    hydra = HydraConfig.get()
    given = {override.lstrip("+").partition("=")[0] for override in hydra.overrides.hydra}
    if cfg.out is not None and "hydra.run.dir" in given:
        raise UserError(f"out={cfg.out} and hydra.run.dir={hydra.run.dir} both set the folder of results.json; give only one of them")
    degradation: Any = vars(subject.task.degradation)
    values = {**identity, "checkpoint": None if subject.sha256 else identity["checkpoint"], "degradation": degradation}
    del values["metrics"]  # traits are determined by the names and classes of the metrics
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]
    precision = [] if subject.reduced is None else [subject.reduced.precision]
    name = "-".join([_readable(Path(str(cfg.checkpoint)).stem), _readable(subject.task.label), *precision, digest])
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir) if "hydra.sweep.subdir" in given else Path(hydra.sweep.dir) / name
    return Path(hydra.run.dir) if cfg.out is not None or "hydra.run.dir" in given else Path(hydra.run.dir) / name


def _readable(text: str) -> str:
    """Shorten text for a folder name, and replace characters that are special in a shell or in Hydra."""
    return re.sub(r"[^\w.+]+", "_", text)[:60].strip("_") or "checkpoint"


def _without_network(cfg: DictConfig, checkpoint: str) -> _Subject:
    task = build_task((cfg if _task_is_given() else recorded_task("sr_x2", None, _overrides())).task, cfg.metrics)
    fitting, restorer = baseline(task)
    if checkpoint == "bicubic" != fitting:
        raise UserError(f"checkpoint=bicubic upscales images, but {task.name} keeps their size; checkpoint=degraded evaluates its input")
    if checkpoint == "degraded" != fitting:
        raise UserError(f"checkpoint=degraded: the input of {task.name} is smaller than its output; checkpoint=bicubic upscales it")
    return _Subject(restorer, f"{checkpoint} (this run)", task, None, {})


def _with_network(cfg: DictConfig, checkpoint: str) -> _Subject:
    overrides: Any = OmegaConf.to_container(cfg.model, resolve=True)
    trust = trust_of(cfg)
    loaded = load_checkpoint(Path(checkpoint), with_named_norms(overrides), trust=trust)
    try:
        if not _task_is_given():  # otherwise nothing is built from the record's task
            trust.require(loaded.task_config, "task")
    except UserError as error:
        raise UserError(f"{loaded.path}: the task in its record {error}") from None
    network: Any = loaded.network
    task = build_task((cfg if _task_is_given() else _trained_task(loaded, checkpoint)).task, cfg.metrics)
    if (network.scale, network.in_channels) != (task.scale, task.channels):
        raise UserError(
            f"checkpoint={checkpoint} was trained for {loaded.task or 'a task'} (scale {network.scale}, {network.in_channels} channels), "
            f"and task={task.name} needs scale {task.scale}, {task.channels} channels"
        )
    where = device(cfg.device)
    restorer = NetworkRestorer(network.to(where), task.protocol.padding, where)
    return _Subject(restorer, loaded.title, task, sha256(loaded.path), overrides)


def _in_precision(subject: _Subject, precision: str, test_sets: list[TestSet]) -> _Subject:
    """Return a subject whose network computes in a precision."""
    restorer = subject.restorer
    if not isinstance(restorer, NetworkRestorer):
        raise UserError(f"precision={precision}: {subject.title} has no network to compute in it; expected precision=fp32")
    if precision in ("fp16", "fp16_safe") and torch.device(restorer.device).type == "cpu":
        _log.warning("precision=%s: most CPUs compute in float16 several times more slowly than in float32; device=cuda is fast", precision)
    calibration = calibration_images(subject.task, test_sets) if precision in BITS else None
    return replace(subject, reduced=in_precision(restorer.network, precision, calibration))


def _trained_task(loaded: Checkpoint, checkpoint: str) -> DictConfig:
    """Return the task that a network was trained for, with the overrides of the command line."""
    if loaded.task is not None:
        return recorded_task(loaded.task, loaded.task_config, _overrides())
    network: Any = loaded.network
    name = f"sr_x{network.scale}"
    if network.in_channels == 3 and name in options("task"):
        return recorded_task(name, None, _overrides())
    raise UserError(
        f"checkpoint={checkpoint} does not record its task (scale {network.scale}, {network.in_channels} channels): "
        "give task=NAME, such as task=denoise_color_25"
    )


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task)


def _task_is_given() -> bool:
    return any(override.lstrip("+").startswith(("task=", "task@")) for override in _overrides())
