"""Reproduce a claim of the paper: python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]."""

from pathlib import Path

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.errors import UserError
from irformer.experiments.figure1 import reproduce_figure1
from irformer.reporting.page import readable_console


def reproduce() -> None:
    """Reproduce a claim of the paper: python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]."""
    arguments = command_line.reproduce().parse_args()
    with reporting_user_errors():
        odd = [word for word in arguments.overrides if "=" not in word]
        if odd:
            raise UserError(f"{odd[0]}: expected KEY=VALUE, as budget=cpu, out=FOLDER or an override of train.py")
        words = dict(word.split("=", 1) for word in arguments.overrides)
        budget = words.pop("budget", "cpu")
        out = Path(words.pop("out", f"runs/{arguments.claim}-{budget}"))
        if budget not in ("cpu", "gpu", "paper"):
            raise UserError(f"budget={budget}: expected cpu, gpu or paper")
        reproduce_figure1(budget, out, [f"{key}={value}" for key, value in words.items()], readable_console())
