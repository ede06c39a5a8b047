"""The engine of the laboratory: plan the arms of experiments, train what is missing, keep records, and write the pages from the records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.text import Text

from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.experiments.arm_records import Record, complete_record, find_record, lacking_analyses, write_record
from irformer.experiments.budgets import BUDGETS, Budget
from irformer.experiments.control import CONTROL
from irformer.experiments.description import Experiment
from irformer.experiments.dynamics_claims import DYNAMICS_CLAIMS
from irformer.experiments.lab_arms import Arm
from irformer.experiments.measured import Measured
from irformer.experiments.planning import PlannedRun, plan_runs
from irformer.experiments.quality_claims import QUALITY_CLAIMS
from irformer.experiments.result_pages import Finding, State, write_index, write_result
from irformer.experiments.step_costs import FIXED_SECONDS, OTHER_WORK, duration, estimate
from irformer.experiments.training_data import find_training_data
from irformer.experiments.training_jobs import train_runs
from irformer.experiments.weight_claims import WEIGHT_CLAIMS
from irformer.reporting.tables import ResultTable


def _place(experiment: Experiment) -> tuple[str, int]:
    """Return what claims are sorted by: control, then the figures and the tables by their numbers."""
    kind = experiment.name.rstrip("0123456789")
    return kind, int(experiment.name.removeprefix(kind) or 0)


EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment for experiment in sorted((CONTROL, *DYNAMICS_CLAIMS, *QUALITY_CLAIMS, *WEIGHT_CLAIMS), key=_place)
}
RESULTS_FOLDER = Path("docs/results")
OTHER_FOLDER = Path("runs/lab/results")  # of arms that differ from the described ones
_MOST_SEEDS = 16


@dataclass(frozen=True)
class Order:
    """What a command asks for.

    Args:
        names: names of experiments.
        budget: the budget.
        jobs: runs at once; None for that of the budget.
        seeds: number of seeds of each arm; None for that of the description.
        out: the folder of pages and records; None for docs/results, or runs/lab/results if arms differ from the described ones.
        extra: overrides of train.py for all arms.
    """

    names: Sequence[str]
    budget: Budget
    jobs: int | None = None
    seeds: int | None = None
    out: Path | None = None
    extra: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """The folder of pages and records."""
        return self.out or (OTHER_FOLDER if self.extra else RESULTS_FOLDER)

    @cached_property
    def experiments(self) -> list[Experiment]:
        """The experiments.

        Raises:
            UserError: a name is unknown.
        """
        for name in self.names:
            if name not in EXPERIMENTS:
                raise UserError(f"{name}: unknown; known: {', '.join(EXPERIMENTS)}{nearest(name, list(EXPERIMENTS))}")
        return [EXPERIMENTS[name] for name in self.names]


def prepare(order: Order) -> tuple[Order, list[PlannedRun], str | None]:
    """Plan an order.

    Returns:
        The order, with overrides for other training data if those of the budget are absent; its runs without a record; and a line that
        says which data are used instead, or None.

    Raises:
        UserError: a name is unknown, a record belongs to another configuration, or no training data are found.
    """
    missing = _missing(order)
    if not missing or any(word.startswith("data") for word in order.extra):
        return order, missing, None
    words, note = find_training_data(missing, order.budget)
    if not words:
        return order, missing, None
    order = replace(order, extra=(*order.extra, *words))
    return order, _missing(order), f"{note}; pages and records are in {order.folder}"


def conduct(order: Order, console: Console) -> None:
    """Train the missing runs of some experiments, keep their records, and write their pages and the table of all verdicts.

    Raises:
        Stopped: a signal was received; the same command resumes.
        UserError: the order cannot be carried out, or a run failed.
    """
    order, missing, note = prepare(order)
    if note:
        console.print(Text(note), soft_wrap=True)
    wanted = _wanted_analyses(order)
    if missing:
        jobs = order.jobs or order.budget.jobs
        for line in estimate(missing, jobs).lines:
            console.print(Text(line), soft_wrap=True)
        records = _records_of(order.folder, order.budget)

        def needed(run: PlannedRun) -> tuple[str, ...]:
            return wanted.get(run.overrides, ())

        train_runs(missing, jobs, console, lambda run: write_record(run, records, needed(run)), needed)
    _complete_records(order, wanted, console)
    states = all_states(order.folder, order.seeds, order.extra)
    for experiment in order.experiments:
        findings = [found.finding for found in states[experiment.name].values() if found.finding is not None]
        for file in write_result(experiment, findings, order.folder):
            console.print(Text(f"wrote {file}"), soft_wrap=True)
        for finding in findings:
            console.print(Text(f"{experiment.name}, budget {finding.measured.budget.name}: {finding.sentence}", "bold"), soft_wrap=True)
    index = write_index(states, EXPERIMENTS, order.folder)
    console.print(Text(f"wrote {index}"), soft_wrap=True)


def state(
    experiment: Experiment, budget: Budget, out: Path, seeds: int | None = None, extra: Sequence[str] = (), verify: bool = True
) -> State:
    """Return how far an experiment is at a budget, with its result if all runs are finished.

    The result uses every seed with a record, also those that were added.

    Args:
        experiment: the experiment.
        budget: the budget.
        out: the folder of pages and records.
        seeds: number of seeds that each arm needs; None for that of the description.
        extra: overrides of train.py for all arms.
        verify: compare the configurations of records with those of the arms.
    """
    arms = {arm.key: arm for arm in experiment.arms(budget)}
    folder = _records_of(out, budget)
    needed = plan_runs(arms.values(), budget, seeds, extra)
    if not folder.is_dir():
        return State(0, len(needed), None)
    records: dict[str, dict[int, Record]] = {}
    for key, arm in arms.items():
        runs = plan_runs([arm], budget, _MOST_SEEDS, extra)
        found = {run.seed: record for run in runs if (record := find_record(run, folder, verify)) is not None}
        records[key] = {seed: record for seed, record in found.items() if not lacking_analyses(record, experiment.analyses)}
    finished = sum(run.seed in records[run.arm.key] for run in needed)
    if finished < len(needed):
        return State(finished, len(needed), None)
    measured = Measured(budget, arms, records)
    return State(finished, len(needed), Finding(measured, experiment.checks(measured)))


def all_states(out: Path, seeds: int | None = None, extra: Sequence[str] = ()) -> dict[str, dict[str, State]]:
    """Return the state of every experiment at every budget, by the names of its records alone."""
    return {
        name: {budget.name: state(experiment, budget, out, seeds, extra, verify=False) for budget in BUDGETS.values()}
        for name, experiment in EXPERIMENTS.items()
    }


def overview(out: Path) -> ResultTable:
    """Return the table of `reproduce.py list`."""
    rows = []
    for name, by_budget in all_states(out).items():
        experiment = EXPERIMENTS[name]
        cells = [f"{_cost(experiment, BUDGETS[budget])}; {state.text}" for budget, state in by_budget.items()]
        arms = len(list(experiment.arms(BUDGETS["cpu"])))
        rows.append([name, experiment.reference, experiment.in_short, str(arms), *cells])
    notes = [
        *(f"budget={budget.name}: {budget.title}; hours of {budget.hardware}." for budget in BUDGETS.values()),
        "Costs are rough and for all arms; arms that several claims share are trained once. A command prints "
        "an estimate from a measured step.",
    ]
    return ResultTable("Claims", ["name", "paper", "claim", "arms", *(f"budget={name}" for name in BUDGETS)], rows, notes)


def _cost(experiment: Experiment, budget: Budget) -> str:
    runs = plan_runs(experiment.arms(budget), budget)
    seconds = sum(FIXED_SECONDS + OTHER_WORK * run.arm.cost * budget.step_seconds * run.arm.steps(budget) for run in runs)
    return duration(seconds / budget.jobs)


def _records_of(out: Path, budget: Budget) -> Path:
    return out / "data" / budget.name


def _missing(order: Order) -> list[PlannedRun]:
    """Return the runs without a record, each once; an arm that several experiments share gets the largest number of seeds."""
    runs = plan_runs(_arms(order), order.budget, order.seeds, order.extra)
    records = _records_of(order.folder, order.budget)
    return [run for run in runs if find_record(run, records) is None]


def _arms(order: Order) -> Iterable[Arm]:
    return (arm for experiment in order.experiments for arm in experiment.arms(order.budget))


def _wanted_analyses(order: Order) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the analyses that any experiment needs of a run, by the run's overrides."""
    wanted: dict[tuple[str, ...], tuple[str, ...]] = {}
    for experiment in EXPERIMENTS.values():
        if experiment.analyses:
            for run in plan_runs(experiment.arms(order.budget), order.budget, _MOST_SEEDS, order.extra):
                wanted[run.overrides] = tuple(dict.fromkeys((*wanted.get(run.overrides, ()), *experiment.analyses)))
    return wanted


def _complete_records(order: Order, wanted: Mapping[tuple[str, ...], tuple[str, ...]], console: Console) -> None:
    """Add the analyses that the ordered experiments need to records that were written without them."""
    records = _records_of(order.folder, order.budget)
    names = {name for experiment in order.experiments for name in experiment.analyses}
    for run in plan_runs(_arms(order), order.budget, order.seeds, order.extra):
        record = find_record(run, records)
        if record is None or not (lacking := lacking_analyses(record, names & set(wanted.get(run.overrides, ())))):
            continue
        console.print(Text(f"measuring {', '.join(sorted(lacking))}: {run.name}"), soft_wrap=True)
        complete_record(record, run, sorted(lacking))
