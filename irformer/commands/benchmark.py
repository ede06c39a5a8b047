"""Measure a checkpoint on test sets: python scripts/benchmark.py checkpoint=PATH|bicubic|degraded task=sr_x2 'test_sets=[Set5]'."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.text import Text

from irformer.benchmark import results_record
from irformer.checkpoints import load_checkpoint
from irformer.commands.common import command, device
from irformer.config import instantiate, trust_of
from irformer.errors import UserError
from irformer.files import write_atomically
from irformer.inference import NetworkRestorer, Restorer, baseline
from irformer.report import benchmark_table, readable_console
from irformer.tasks import Task
from irformer.training.data import find_test_sets
from irformer.training.run import measure_test_sets
from irformer.trust import Trust


def benchmark() -> None:
    """Measure a checkpoint on test sets: python scripts/benchmark.py checkpoint=PATH|bicubic|degraded task=sr_x2 'test_sets=[Set5]'."""
    command(_benchmark, "benchmark")


def _benchmark(cfg: DictConfig) -> None:
    task: Task = instantiate(cfg.task)
    test_sets = find_test_sets(cfg.test_sets, Path(cfg.paths.data), task)
    restorer, name = _restorer(cfg.checkpoint, cfg.model, task, cfg.device, trust_of(cfg))
    results = measure_test_sets(restorer, test_sets)
    console = readable_console()
    benchmark_table(task, {name: results}).show(console)
    file = Path(cfg.out) / "results.json"
    record = results_record(str(cfg.checkpoint), task, restorer.padding, results)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda aside: aside.write_text(json.dumps(record, indent=1) + "\n"))
    console.print(Text(f"results: {file}"), soft_wrap=True)


def _restorer(checkpoint: str, model: DictConfig, task: Task, device_name: str, trust: Trust) -> tuple[Restorer, str]:
    """A restorer for a task, and how tables call it."""
    untrained, restorer = baseline(task)
    if checkpoint == untrained:
        return restorer, f"{untrained} (this run)"
    if checkpoint == "bicubic":
        raise UserError(f"checkpoint=bicubic enlarges images, and {task.name} keeps their size: checkpoint=degraded measures its input")
    if checkpoint == "degraded":
        raise UserError(f"checkpoint=degraded: the input of {task.name} is smaller than its output: checkpoint=bicubic enlarges it")
    overrides: Any = OmegaConf.to_container(model, resolve=True)
    loaded = load_checkpoint(Path(checkpoint), overrides, trust)
    network = loaded.network
    if (network.scale, network.in_channels) != (task.scale, task.channels):
        raise UserError(
            f"checkpoint={checkpoint} was trained for {loaded.task or 'a task'} (scale {network.scale}, {network.in_channels} channels), "
            f"and task={task.name} needs scale {task.scale}, {task.channels} channels"
        )
    where = device(device_name)
    return NetworkRestorer(network.to(where), task.protocol.padding, where), loaded.title
