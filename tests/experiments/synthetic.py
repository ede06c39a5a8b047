"""Records of runs that were never trained, with numbers that a test chooses."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from irformer.experiments.arm_records import config_text
from irformer.experiments.budgets import Budget
from irformer.experiments.description import Experiment
from irformer.experiments.planning import PlannedRun, plan_runs

GROUPS = 3
IMAGES = [f"image{i}" for i in range(6)]
Number = Callable[[PlannedRun, int], float]  # of a run at a step


def steps_of(run: PlannedRun) -> list[int]:
    return [0, *(round(run.steps * share / 20) for share in range(1, 21))]


@cache
def norm_of(run: PlannedRun) -> Any:
    return run.config.norm


@cache
def task_of(run: PlannedRun) -> Any:
    return run.config.task


def noise(run: PlannedRun, size: float) -> float:
    """A deviation that is the same whenever it is asked for."""
    return float(np.random.default_rng([run.seed, len(run.name)]).normal(0, size))


def write_record(run: PlannedRun, folder: Path, magnitude: Number, entropy: Number, psnr: Number) -> None:
    """Write the record of a run; magnitude and entropy are those of the last group, and the groups before it are calmer."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config_text(run))
    start = {"devices": ["Test CPU"], "python": "3.11.0", "irformer": "0.0", "code": None, "packages": {"torch": "2.0", "numpy": "1"}}
    (folder / "provenance.json").write_text(json.dumps({"starts": [start]}))
    with (folder / "dynamics.csv").open("w", newline="") as file:
        rows = [["step", "layer", "name", "mean_square", "channel_entropy"]]
        for step in steps_of(run):
            for layer in range(GROUPS):
                share = (layer + 1) / GROUPS
                rows.append([step, layer, f"layers.{layer}", f"{magnitude(run, step) * share:.6g}", f"{entropy(run, step) / share:.6g}"])
        csv.writer(file).writerows(rows)
    task = task_of(run)
    metric = task.protocol.metrics[0]
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = [["step", "name", "value"], *([step - 1, f"val/{metric}", f"{psnr(run, step):.6g}"] for step in steps_of(run)[5::5])]
        csv.writer(file).writerows(rows)
    value = psnr(run, run.steps)
    per_image = {name: {metric: value + 0.1 * place} for place, name in enumerate(IMAGES)}
    results = {
        "task": task.name,
        "protocol": {"metrics": list(task.protocol.metrics)},
        "metrics": {metric: {"higher_is_better": True, "digits": 2, "unit": "dB"}},
        "test_sets": {"Corners": {"images": len(IMAGES), "metrics": {metric: value}, "per_image": per_image}},
        "trained_steps": run.steps,
        "analyses": analyses(run),
    }
    (folder / "results.json").write_text(json.dumps(results))


def analyses(run: PlannedRun) -> dict[str, Any]:
    random = np.random.default_rng([run.seed, len(run.name)])
    magnitudes = random.random(8)
    tables = random.normal(size=(2, 5, 5))
    precision = {
        name: {"psnr": 30 - loss + noise(run, 0.01), "non_finite": 0, "peak": 10.0, "layer": "conv", "scheme": f"the scheme of {name}"}
        for name, loss in (("fp32", 0), ("bf16", 0.02), ("fp16", 0), ("int8", 0.1), ("int4", 5))
    }
    return {
        "final_norm": {"weight": [1.0] * 8, "bias": (0.1 * magnitudes).tolist(), "magnitude": magnitudes.tolist()},
        "position_biases": {"smoothness": 0.5 + noise(run, 0.05), "last": tables.tolist()},
        "precision": {
            **precision,
            "scaled": {"stream": 100.0, "factor": 1024.0, "fp32": 30.0, "fp16": 6.0},
            "calibration": ["photo"],
            "test_set": "Corners",
        },
    }


def write_records(
    experiments: Sequence[Experiment],
    budget: Budget,
    out: Path,
    magnitude: Number = lambda run, step: 1.0,
    entropy: Number = lambda run, step: 3.0,
    psnr: Number = lambda run, step: 30.0,
    seeds: int | None = None,
) -> None:
    """Write the records of all arms of some experiments."""
    for run in plan_runs([arm for experiment in experiments for arm in experiment.arms(budget)], budget, seeds):
        folder = out / "data" / budget.name / run.name
        if not folder.exists():
            write_record(run, folder, magnitude, entropy, psnr)
