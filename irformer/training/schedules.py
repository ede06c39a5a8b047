"""Learning rate schedules, as factors of the optimizer's learning rate over optimizer steps."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt

Count = Annotated[int, Ge(0)]


class MultiStep:
    """Multiplies by gamma at each milestone, after a linear warm-up: the schedule of BasicSR, SwinIR and HAT.

    Args:
        milestones: steps at which the factor falls.
        gamma: what it is multiplied by.
        warmup: steps over which it grows linearly from 0.
    """

    def __init__(self, milestones: Sequence[Count], gamma: Annotated[float, Gt(0)] = 0.5, warmup: Count = 0) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """The factor of step 0, 1, ..."""
        return self.gamma ** bisect_right(self.milestones, step) * warming_up(step, self.warmup)


class Cosine:
    """Half a cosine from the full rate to a last one (SGDR without restarts, arXiv 1608.03983), after steps at the full rate.

    Restormer is flat for 92,000 of 300,000 steps and falls from 3e-4 to 1e-6 in the rest.

    Args:
        steps: at which the last rate is reached; it stays from there on.
        lr: the optimizer's learning rate.
        end_lr: the last learning rate.
        flat: steps at the full rate before it falls.
        warmup: steps over which the factor grows linearly from 0.

    Raises:
        ValueError: nothing is left between flat and steps, or a rate cannot be.
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
            raise ValueError(f"optim.schedule: flat={flat} leaves no step to fall in before steps={steps}")
        self.steps = steps
        self.end = end_lr / lr
        self.flat = flat
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """The factor of step 0, 1, ..."""
        fallen = min(1.0, max(0, step - self.flat) / (self.steps - self.flat))
        return (self.end + (1 - self.end) * (1 + math.cos(math.pi * fallen)) / 2) * warming_up(step, self.warmup)


def warming_up(step: int, warmup: int) -> float:
    """The factor of a linear warm-up: 1 from step `warmup` on, and before that growing by the same amount in each step, from above 0."""
    return min(1.0, (step + 1) / (warmup + 1))
