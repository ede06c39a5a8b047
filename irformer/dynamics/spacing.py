"""The steps at which a run is probed."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Spacing:
    """Steps at equal distances, or at equal ratios.

    Args:
        kind: `linear`: multiples of `every`; `log`: 10^(k / per_decade), rounded, for k = 0, 1, 2, ...
        every: steps between two, if they are linear.
        per_decade: number of steps from one power of ten to the next, if they are logarithmic; near the start, several are the same.
    """

    kind: Literal["linear", "log"]
    every: int
    per_decade: int

    def contains(self, step: int) -> bool:
        """Return whether a step, counted from 1, is one of them."""
        if self.kind == "linear":
            return step % self.every == 0
        nearest = round(self.per_decade * math.log10(step))
        return any(round(10 ** (k / self.per_decade)) == step for k in range(max(0, nearest - 1), nearest + 2))

    def thinned(self, step: int) -> bool:
        """Return whether a step is one of fewer: if they are linear, only the numbers 1, 2, 3, 4, 6, 7, 10, 13, 18, ... (8 per decade)."""
        if self.kind == "log":
            return self.contains(step)
        return self.contains(step) and Spacing("log", 1, 8).contains(step // self.every)
