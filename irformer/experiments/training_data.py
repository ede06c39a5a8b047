"""The training data of an order: those of the budget, or the next ones that are on this machine."""

from collections.abc import Sequence
from pathlib import Path

from irformer.datasets.catalog import TRAINING_SETS, find_folder, how_to_get
from irformer.errors import UserError
from irformer.experiments.budgets import Budget
from irformer.experiments.planning import PlannedRun

_SETS = {"bsds400": ("BSDS400",), "df2k": ("DIV2K", "Flickr2K"), "sample": ()}
_SAMPLE_WORDS = ("data=sample", "data.val=sample", "test_sets=[sample]")


def find_training_data(runs: Sequence[PlannedRun], budget: Budget) -> tuple[tuple[str, ...], str]:
    """Choose the first training data of a budget that are on this machine.

    Args:
        runs: the runs to train.
        budget: the budget.

    Returns:
        Overrides of train.py, empty for the data of the budget's configuration, and a line that says what is used instead of what.

    Raises:
        UserError: none of the data are found.
    """
    root = Path(runs[0].config.paths.data)
    lacking: list[str] = []
    for place, name in enumerate(budget.data):
        absent = [each for each in _SETS[name] if find_folder(root, TRAINING_SETS[each].hq) is None]
        if not absent:
            words = () if place == 0 else _SAMPLE_WORDS if name == "sample" else (f"data={name}",)
            used = "photos bundled with scikit-image" if name == "sample" else name
            return words, f"{', '.join(lacking)} not found in {root}: training all arms on {used}"
        lacking += absent
    raise UserError(f"budget={budget.name}: {lacking[0]} is not found in {root}; {how_to_get(lacking[0])}, or choose another budget")
