"""Learning rate schedules, as factors of the optimizer's learning rate over optimizer steps."""

from bisect import bisect_right
from collections.abc import Sequence


class MultiStep:
    """Multiplies by gamma at each milestone, after a linear warm-up: the schedule of BasicSR, SwinIR and HAT.

    Args:
        milestones: steps at which the factor falls.
        gamma: what it is multiplied by.
        warmup: steps over which it grows linearly from 0.
    """

    def __init__(self, milestones: Sequence[int], gamma: float = 0.5, warmup: int = 0) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """The factor of step 0, 1, ..."""
        factor = self.gamma ** bisect_right(self.milestones, step)
        return factor * min(1.0, (step + 1) / (self.warmup + 1))
