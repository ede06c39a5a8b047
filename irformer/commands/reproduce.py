"""Reproduce claims of the paper: python scripts/reproduce.py list | NAME... budget=cpu|gpu|paper [jobs=N] [seeds=N] [--print]."""

from collections.abc import Sequence
from pathlib import Path

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.errors import UserError
from irformer.experiments.budgets import find_budget
from irformer.experiments.figure1_demo import reproduce_figure1
from irformer.experiments.laboratory import RESULTS_FOLDER, Order, conduct, overview, prepare
from irformer.reporting.page import readable_console


def reproduce() -> None:
    """Reproduce claims of the paper: python scripts/reproduce.py list | NAME... budget=cpu|gpu|paper [jobs=N] [seeds=N] [--print]."""
    arguments = command_line.reproduce().parse_args()
    names = [word for word in arguments.words if "=" not in word]
    options = dict(word.split("=", 1) for word in arguments.words if "=" in word)
    console = readable_console()
    with reporting_user_errors():
        if names == ["list"]:
            overview(Path(options.get("out", RESULTS_FOLDER))).show(console)
            return
        if options.get("budget") == "demo":
            _demo(names, options)
            return
        order = _order(names, options)
        if arguments.print:
            for run in prepare(order)[1]:
                print(run.command)
        else:
            conduct(order, console)


def _order(names: Sequence[str], options: dict[str, str]) -> Order:
    if not names:
        raise UserError("no claim is named: expected NAME, as reproduce.py list shows them")
    budget = find_budget(options.pop("budget", "cpu"))
    jobs, seeds, out = _count(options, "jobs"), _count(options, "seeds"), options.pop("out", None)
    extra = tuple(f"{key}={value}" for key, value in options.items())
    return Order(names, budget, jobs, seeds, Path(out) if out else None, extra)


def _count(options: dict[str, str], key: str) -> int | None:
    """Take a number of at least 1 out of the options; None if it is not given."""
    word = options.pop(key, None)
    if word is None:
        return None
    if not word.isdecimal() or int(word) < 1:
        raise UserError(f"{key}={word}: expected a whole number of at least 1")
    return int(word)


def _demo(names: Sequence[str], options: dict[str, str]) -> None:
    if list(names) != ["figure1"]:
        raise UserError(f"budget=demo: expected figure1, found {' '.join(names) or 'no name'}")
    del options["budget"]
    out = Path(options.pop("out", "runs/figure1-demo"))
    reproduce_figure1(out, [f"{key}={value}" for key, value in options.items()], readable_console())
