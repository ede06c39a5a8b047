"""Reproduce a claim of the paper: python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]."""

import argparse
from pathlib import Path

from irformer.commands.common import telling_mistakes
from irformer.errors import UserError
from irformer.experiments.figure1 import reproduce_figure1
from irformer.reporting.page import readable_console


def reproduce() -> None:
    """Reproduce a claim of the paper: python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]."""
    parser = argparse.ArgumentParser(description="Reproduce a claim of the i-LN paper.")
    parser.add_argument("claim", choices=["figure1"], help="what to reproduce")
    parser.add_argument("overrides", nargs="*", help="budget=cpu|gpu|paper, out=FOLDER, and overrides of train.py for all arms")
    arguments = parser.parse_args()
    with telling_mistakes():
        odd = [word for word in arguments.overrides if "=" not in word]
        if odd:
            raise UserError(f"{odd[0]}: expected KEY=VALUE, as budget=cpu, out=FOLDER or an override of train.py")
        words = dict(word.split("=", 1) for word in arguments.overrides)
        budget = words.pop("budget", "cpu")
        out = Path(words.pop("out", f"runs/{arguments.claim}-{budget}"))
        if budget not in ("cpu", "gpu", "paper"):
            raise UserError(f"budget={budget}: expected cpu, gpu or paper")
        reproduce_figure1(budget, out, [f"{key}={value}" for key, value in words.items()], readable_console())
