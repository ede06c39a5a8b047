"""The arms of experiments: runs that differ only in their seed, described by their overrides of train.py."""

from dataclasses import dataclass
from typing import Literal

from irformer.experiments.budgets import Budget

Blocks = Literal["ln", "iln", "iln_norescale", "ln_rescale"]
Ends = Literal["ln", "affine", "none"]


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in their seed.

    Args:
        key: the name by which the experiment refers to it.
        title: the name in tables and figures.
        overrides: overrides of train.py in addition to those of the budget. Arms of several experiments with equal overrides are one arm.
        seeds: number of seeds, or None for that of the budget.
        cost: seconds of a step relative to the budget's network, a rough number for `reproduce.py list`.
    """

    key: str
    title: str
    overrides: tuple[str, ...]
    seeds: int | None = None
    cost: float = 1.0

    def steps(self, budget: Budget) -> int:
        """Return the number of steps at a budget."""
        given = [int(word.partition("=")[2]) for word in self.overrides if word.startswith("trainer.max_steps=")]
        return given[-1] if given else budget.short


def scheme(blocks: Blocks, ends: Ends, standardized: bool) -> tuple[str, ...]:
    """Return the overrides of a normalization scheme, always in full, so that equal schemes are one arm."""
    return (f"norm={blocks}", f"norm.ends={ends}", f"norm.standardize_input={str(standardized).lower()}")


def long(budget: Budget) -> tuple[str, ...]:
    """Return the overrides of an arm that is followed further than the others."""
    if budget.long == budget.short:
        return ()
    return (f"trainer.max_steps={budget.long}", f"callbacks.probe.every={budget.long // budget.probes}")


OFFICIAL_LN = scheme("ln", "ln", standardized=False)
OFFICIAL_ILN = scheme("iln", "affine", standardized=True)
LN_WITH_AFFINE_ENDS = scheme("ln", "affine", standardized=True)
