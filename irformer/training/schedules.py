"""Learning rate schedules: the factor of the optimizer's learning rate at each optimizer step."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt

Count = Annotated[int, Ge(0)]


class MultiStep:
    """Multiplies by gamma at each milestone, after a linear warm-up: the schedule of BasicSR, SwinIR and HAT.

    Args:
        milestones: steps at which the factor decays.
        gamma: decay factor at each milestone.
        warmup: steps of linear warm-up from 0.
    """

    def __init__(self, milestones: Sequence[Count], gamma: Annotated[float, Gt(0)] = 0.5, warmup: Count = 0) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """Return the factor at a step, counted from 0."""
        return self.gamma ** bisect_right(self.milestones, step) * warmup_factor(step, self.warmup)


class Cosine:
    """Half a cosine from the full to the final learning rate (SGDR without restarts, arXiv 1608.03983), after optional flat steps.

    Restormer trains 92,000 of 300,000 steps at 3e-4 and then decays to 1e-6.

    Args:
        steps: step at which the final rate is reached; it is constant from there on.
        lr: the optimizer's learning rate.
        end_lr: the final learning rate.
        flat: steps at the full rate before the decay.
        warmup: steps of linear warm-up from 0.

    Raises:
        ValueError: flat leaves no steps for the decay.
    """

    def __init__(
        self,
        steps: Annotated[int, Ge(1)],
        lr: Annotated[float, Gt(0)],
        end_lr: Annotated[float, Ge(0)] = 0.0,
        flat: Count = 0,
        warmup: Count = 0,
    ) -> None:
        if not 0 <= flat < steps:
            raise ValueError(f"optim.schedule: flat={flat} leaves no steps for the decay before steps={steps}")
        self.steps = steps
        self.end = end_lr / lr
        self.flat = flat
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """Return the factor at a step, counted from 0."""
        progress = min(1.0, max(0, step - self.flat) / (self.steps - self.flat))
        return (self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2) * warmup_factor(step, self.warmup)


def warmup_factor(step: int, warmup: int) -> float:
    """Return the factor of a linear warm-up: it grows by the same amount in each step, starting above 0, and is 1 from step `warmup` on."""
    return min(1.0, (step + 1) / (warmup + 1))
