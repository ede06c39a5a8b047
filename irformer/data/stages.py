"""Patch size, batch size and sample indices of each step, as functions of the step alone."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

from annotated_types import Interval, MinLen

from irformer.errors import UserError

Steps = Annotated[Sequence[Annotated[int, Interval(ge=1, le=1_000_000_000)]], MinLen(1)]
Sides = Annotated[Sequence[Annotated[int, Interval(ge=1, le=65536)]], MinLen(1)]
Batches = Annotated[Sequence[Annotated[int, Interval(ge=1, le=1_000_000)]], MinLen(1)]


class Stages:
    """Progressive learning: patch and batch sizes that change in stages (Restormer, arXiv 2111.09881, section 3.3).

    Samples are numbered across all stages, so the number of samples seen determines the position in the run.

    Args:
        steps: optimizer steps of each stage; the last stage lasts until the end of the run, regardless of its number.
        patch_size: side of the LQ patch in each stage, in pixels.
        batch_size: samples of one optimizer step in each stage, over all processes and accumulated batches.

    Attributes:
        first_steps: first step of each stage.

    Raises:
        UserError: the lists differ in length or are empty, or a number is not positive.
    """

    def __init__(self, steps: Steps, patch_size: Sides, batch_size: Batches) -> None:
        self.steps = list(steps)
        self.patch_size = list(patch_size)
        self.batch_size = list(batch_size)
        lists = {"steps": self.steps, "patch_size": self.patch_size, "batch_size": self.batch_size}
        if not self.steps or len({len(values) for values in lists.values()}) > 1:
            found = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
            raise UserError(f"progressive: expected lists of equal length, with one number per stage, found {found}")
        for name, values in lists.items():
            if any(not isinstance(value, int) or value < 1 for value in values):
                raise UserError(f"progressive.{name}={values}: expected whole numbers, 1 or more")
        self.first_steps = [0, *accumulate(self.steps[:-1])]
        self._first_samples = [0, *accumulate(n * batch for n, batch in zip(self.steps[:-1], self.batch_size[:-1], strict=True))]

    @classmethod
    def constant(cls, patch_size: int, batch_size: int) -> "Stages":
        """Return a single stage with constant sizes."""
        return cls([1], [patch_size], [batch_size])

    def batch_at(self, step: int) -> int:
        """Return the global batch size of an optimizer step (counted from 0)."""
        return self.batch_size[bisect_right(self.first_steps, step) - 1]

    def first_sample(self, step: int) -> int:
        """Return the index of the first sample of a step, which is the number of samples in all previous steps."""
        stage = bisect_right(self.first_steps, step) - 1
        return self._first_samples[stage] + (step - self.first_steps[stage]) * self.batch_size[stage]

    def patch_of(self, index: int) -> int:
        """Return the side of the LQ patch of a sample in pixels, given its global index."""
        return self.patch_size[bisect_right(self._first_samples, index) - 1]
