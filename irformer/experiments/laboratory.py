"""The engine of the laboratory: plan the arms of experiments, train what is missing, keep records, and write the pages from the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.experiments import control
from irformer.experiments.arm_records import find_record, write_record
from irformer.experiments.budgets import Budget
from irformer.experiments.planning import PlannedRun, plan_runs
from irformer.experiments.step_costs import estimate
from irformer.experiments.training_jobs import train_runs

RESULTS_FOLDER = Path("docs/results")
EXPERIMENTS = {"control": control.arms}


@dataclass(frozen=True)
class Order:
    """What a command asks for.

    Args:
        names: names of experiments.
        budget: the budget.
        jobs: runs at once.
        seeds: number of seeds of each arm; None for the description's.
        out: the folder of pages and records.
        extra: overrides of train.py for all arms.
    """

    names: Sequence[str]
    budget: Budget
    jobs: int
    seeds: int | None
    out: Path
    extra: Sequence[str]

    @property
    def records(self) -> Path:
        """The folder of the records of the budget."""
        return self.out / "data" / self.budget.name


def missing_runs(order: Order) -> list[PlannedRun]:
    """Return the runs without a record, each once."""
    unknown = [name for name in order.names if name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"{unknown[0]}: unknown; known: {', '.join(EXPERIMENTS)}{nearest(unknown[0], list(EXPERIMENTS))}")
    arms = [arm for name in order.names for arm in EXPERIMENTS[name](order.budget)]
    runs = {run.name: run for run in plan_runs(arms, order.budget, order.seeds, order.extra)}
    return [run for run in runs.values() if find_record(run, order.records) is None]


def conduct(order: Order, console: Console) -> None:
    """Train the missing runs of some experiments and keep their records."""
    missing = missing_runs(order)
    if missing:
        for line in estimate(missing, order.jobs).lines:
            console.print(Text(line), soft_wrap=True)
        train_runs(missing, order.jobs, console, lambda run: write_record(run, order.records))
