"""From arms to runs: the configuration, the name and the command of each run of the laboratory."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from irformer.config.compose import compose
from irformer.experiments.budgets import Budget
from irformer.experiments.description import Arm
from irformer.runs.arms import flat_config
from irformer.runs.sweep_folders import Job, find_job_folder


@dataclass(frozen=True)
class PlannedRun:
    """A run of the laboratory.

    Args:
        arm: its arm.
        seed: its seed.
        name: the name of its folder, both of the run and of its record.
        overrides: overrides of train.py.
        config: the composed configuration.
        folder: the run's folder.
    """

    arm: Arm
    seed: int
    name: str
    overrides: tuple[str, ...]
    config: DictConfig
    folder: Path

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return int(self.config.trainer.max_steps)

    @property
    def command(self) -> str:
        """The command that trains this run alone, in the same folder."""
        return shlex.join(["python", "train.py", *self.overrides])


def plan_runs(arms: Iterable[Arm], budget: Budget, seeds: int | None = None, extra: Sequence[str] = ()) -> list[PlannedRun]:
    """Return the runs of some arms, those with seed 0 first, so that each arm has a result early.

    Args:
        arms: the arms.
        budget: the budget.
        seeds: number of seeds of each arm; None for that of the arm, else of the budget.
        extra: overrides of train.py for all arms.
    """
    runs = []
    for arm in arms:
        words = [f"sweep={budget.name}", f"experiment={budget.experiment}", *arm.overrides, *extra]
        composed = _composed(*words)
        sweep = Path(composed.paths.runs) / str(composed.sweep)
        for seed in range(seeds or arm.seeds or budget.seeds):
            config = composed.copy()
            config.seed = seed
            overrides = (*words, f"seed={seed}")
            job = Job(config.task.name, config.model.name, config.norm.name, seed, overrides)
            folder = sweep / find_job_folder(sweep, job, ["experiment"], lambda config=config: flat_config(config))  # type: ignore[misc]
            runs.append(PlannedRun(arm, seed, folder.name, overrides, config, folder))
    return sorted(runs, key=lambda run: run.seed)


@cache
def _composed(*words: str) -> DictConfig:
    return compose("train", list(words))
