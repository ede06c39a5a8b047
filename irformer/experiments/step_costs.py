"""What missing runs will cost, from a few measured training steps of each distinct network."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import l1_loss

from irformer.config.compose import build_network
from irformer.experiments.planning import PlannedRun

_TIMED_STEPS = 3
FIXED_SECONDS = 15.0  # per run: building, the closing benchmark, the record
OTHER_WORK = 1.15  # data, probes, validation and checkpoints, relative to the steps


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of some runs.

    Args:
        step_seconds: median seconds of a training step of each network, by its title.
        seconds: seconds of all runs one after another.
        jobs: runs at once.
    """

    step_seconds: dict[str, float]
    seconds: float
    jobs: int

    @property
    def lines(self) -> list[str]:
        """The estimate in words."""
        steps = [f"{1000 * seconds:.0f} ms per step: {title}" for title, seconds in self.step_seconds.items()]
        total = f"{duration(self.seconds)} for one core or GPU"
        return [*steps, f"estimated: {duration(self.seconds / self.jobs)} with jobs={self.jobs} ({total})"]


def duration(seconds: float) -> str:
    """Return a duration in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def estimate(runs: Sequence[PlannedRun], jobs: int) -> Estimate:
    """Measure a few training steps of each distinct network, and estimate the cost of all runs.

    A step is forward pass, L1 loss, backward pass and an Adam step on random patches, on the device and in the precision of the run, with
    one thread on the CPU as in training.
    """
    distinct: dict[str, list[PlannedRun]] = defaultdict(list)
    for run in runs:
        distinct[_network_key(run.config)].append(run)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = {key: _step_seconds(members[0].config) for key, members in distinct.items()}
    finally:
        torch.set_num_threads(threads)
    shown = {members[0].arm.title: measured[key] for key, members in distinct.items()}
    seconds = sum(_run_seconds(measured[key], (run.steps for run in members)) for key, members in distinct.items())
    return Estimate(shown, seconds, min(jobs, max(1, len(runs))))


def _run_seconds(step: float, steps: Iterable[int]) -> float:
    return sum(FIXED_SECONDS + OTHER_WORK * step * count for count in steps)


def _network_key(config: DictConfig) -> str:
    """Return a text that is equal for runs whose steps cost the same."""
    parts = [OmegaConf.to_container(config[name], resolve=True) for name in ("model", "task")]
    return json.dumps([*parts, config.patch_size, config.batch_size, config.trainer.precision], sort_keys=True, default=str)


def _step_seconds(config: DictConfig) -> float:
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    network = build_network(config.model).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    lq = torch.rand(config.batch_size, config.task.channels, config.patch_size, config.patch_size, device=device)
    side = config.patch_size * config.task.scale
    hq = torch.rand(config.batch_size, config.task.channels, side, side, device=device)
    half = config.trainer.precision in ("bf16", "auto") and on_gpu

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            restored = network(lq)
        l1_loss(restored.float(), hq).backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    step()
    return sorted(step() for _ in range(_TIMED_STEPS))[_TIMED_STEPS // 2]
