"""From arms to runs: the configuration, the name and the command of each run of the laboratory."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from irformer.config.compose import compose
from irformer.experiments.budgets import Budget
from irformer.experiments.lab_arms import Arm
from irformer.runs.arms import flat_config
from irformer.runs.sweep_folders import Job, find_job_folder

_SHARED = ("experiment",)  # keys that do not distinguish arms, as in configs/experiment/lab_*.yaml


@dataclass(frozen=True)
class PlannedRun:
    """A run of the laboratory. Only `config` and `folder` compose its configuration, which takes a fraction of a second.

    Args:
        arm: its arm.
        seed: its seed.
        budget: its budget.
        overrides: overrides of train.py; the seed is the last one.
    """

    arm: Arm
    seed: int
    budget: Budget
    overrides: tuple[str, ...]

    @property
    def config(self) -> DictConfig:
        """The composed configuration."""
        config = _composed(self.overrides[:-1]).copy()  # nothing but the seed depends on the seed
        config.seed = self.seed
        return config

    @property
    def _job(self) -> Job:
        task, model, norm = (
            self._last(group, default)
            for group, default in (("task", f"sr_x{self.budget.scale}"), ("model", self.budget.model), ("norm", "ln"))
        )
        return Job(task, model, norm, self.seed, self.overrides)

    @property
    def name(self) -> str:
        """The name of its record."""
        return self._job.name(_SHARED)

    @property
    def folder(self) -> Path:
        """The run's folder, the one in which `command` trains it."""
        config = self.config
        sweep = Path(config.paths.runs) / str(config.sweep)
        return sweep / find_job_folder(sweep, self._job, _SHARED, lambda: flat_config(config))

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return int(self._last("trainer.max_steps", str(self.budget.short)))

    @property
    def command(self) -> str:
        """The command that trains this run alone."""
        return shlex.join(["python", "train.py", *self.overrides])

    def _last(self, key: str, default: str) -> str:
        """Return the value of the last override of a key."""
        return next((word.partition("=")[2] for word in reversed(self.overrides) if word.startswith(f"{key}=")), default)


def plan_runs(arms: Iterable[Arm], budget: Budget, seeds: int | None = None, extra: Sequence[str] = ()) -> list[PlannedRun]:
    """Return the runs of some arms, each once, those with seed 0 first, so that each arm has a result early.

    Args:
        arms: the arms.
        budget: the budget.
        seeds: number of seeds of each arm; None for that of the arm, else of the budget. An arm of several experiments gets the largest.
        extra: overrides of train.py for all arms.
    """
    runs: dict[tuple[str, ...], PlannedRun] = {}
    for arm in arms:
        words = (f"sweep={budget.name}", f"experiment={budget.experiment}", *arm.overrides, *extra)
        for seed in range(seeds or arm.seeds or budget.seeds):
            overrides = (*words, f"seed={seed}")
            runs.setdefault(overrides, PlannedRun(arm, seed, budget, overrides))
    return sorted(runs.values(), key=lambda run: run.seed)


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    return compose("train", list(words))
