"""The control experiment: which of the three changes of official i-LN networks stops the divergence."""

from collections.abc import Iterator
from itertools import product

from irformer.experiments.budgets import Budget
from irformer.experiments.description import LN_WITH_AFFINE_ENDS, Arm, Blocks, Ends, long, scheme

BLOCKS: tuple[Blocks, ...] = ("ln", "iln")
ENDS: tuple[Ends, ...] = ("ln", "affine", "none")
# The corners that are followed further: blocks and ends with standardized input, and the official LayerNorm network.
LONG = frozenset({("ln", "ln", True), ("ln", "affine", True), ("iln", "ln", True), ("iln", "affine", True), ("ln", "ln", False)})


def corner_key(blocks: str, ends: str, standardized: bool) -> str:
    """Return the key of a corner's arm."""
    return f"{blocks}-{ends}-{'standardized' if standardized else 'mean'}"


def arms(budget: Budget) -> Iterator[Arm]:
    """Yield the twelve corners, then LayerNorm blocks with affine ends at twice the learning rate and at twice the depth."""
    names = {"ln": "LN", "iln": "i-LN"}
    for blocks, ends, standardized in product(BLOCKS, ENDS, (True, False)):
        further = long(budget) if (blocks, ends, standardized) in LONG else ()
        title = f"{names[blocks]} blocks, {names.get(ends, ends)} ends, {'standardized' if standardized else 'mean removed'}"
        yield Arm(corner_key(blocks, ends, standardized), title, scheme(blocks, ends, standardized) + further)
    rate, depths = {"cpu": ("2e-3", [4, 4, 4, 4]), "gpu": ("4e-4", [6] * 12), "paper": ("4e-4", [6] * 12)}[budget.name]
    heads = [] if len(depths) == 4 else [f"model.num_heads={[6] * 12}".replace(" ", "")]
    deep = (f"model.depths={depths}".replace(" ", ""), *heads)
    yield Arm("twice-lr", "LN blocks, affine ends, twice the learning rate", (*LN_WITH_AFFINE_ENDS, f"optim.lr={rate}", *long(budget)))
    yield Arm("twice-depth", "LN blocks, affine ends, twice the depth", (*LN_WITH_AFFINE_ENDS, *deep, *long(budget)), cost=2.0)
