"""The images of the validation set that a run validates on, so that validation stays a small part of its work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irformer.data.stages import Stages
from irformer.data.test_sets import TestSet, evenly_spaced
from irformer.errors import UserError

# A training step costs about three forward passes: one forward, two backward.
_PASSES = 3


@dataclass(frozen=True)
class ValidationImages:
    """The validation set of a run, and its images that the run validates on.

    Args:
        whole: the validation set, measured as a whole at the end of the run.
        chosen: the images measured at each validation, a set of the same name.
        rule: the value of `data.val_images`.
    """

    whole: TestSet
    chosen: TestSet
    rule: str | int

    @property
    def summary(self) -> str:
        """A line for the summary of the run."""
        few, all_of_them = len(self.chosen), len(self.whole)
        if few == all_of_them:
            return f"all {few} images of {self.whole.name} (data.val_images={self.rule})"
        return f"{few} of {all_of_them} images of {self.whole.name} (data.val_images={self.rule}); all of them at the end"

    @property
    def record(self) -> dict[str, Any]:
        """What results.json states about validation, on which the choice of the best weights rests."""
        return {"set": self.whole.name, "val_images": self.rule, "images": len(self.chosen), "of": len(self.whole)}

    def measured_at_the_end(self, test_sets: Sequence[TestSet]) -> list[TestSet]:
        """Return the test sets, with the validation set if only a part of it was validated on and they lack it."""
        files = _files(self.whole)
        if len(self.chosen) == len(self.whole) or any(_files(test_set) == files for test_set in test_sets):
            return list(test_sets)
        last = self.whole.subset(range(len(self.whole)))
        if any(test_set.name == last.name for test_set in test_sets):
            last.name = f"{last.name} (validation)"
        return [*test_sets, last]


def choose_images(whole: TestSet, rule: str | int, stages: Stages, interval: int) -> ValidationImages:
    """Choose evenly spaced images of the validation set.

    `auto` chooses as many images as have at most the LQ pixels that cost a tenth of the training between two validations, counting a
    training step as three forward passes, and at least one. It depends on the configuration and on the sizes of the images only, not on
    the machine or the number of processes.

    Args:
        whole: the validation set.
        rule: a number of images, `auto` or `all`.
        stages: patch and batch sizes.
        interval: optimizer steps between two validations.

    Raises:
        UserError: the validation set has fewer images.
    """
    count = len(whole)
    if rule == "all":
        indices = list(range(count))
    elif rule == "auto":
        indices = _affordable(whole.lq_pixels, pixel_budget(stages, interval))
    elif int(rule) <= count:
        indices = evenly_spaced(int(rule), count)
    else:
        raise UserError(f"data.val_images={rule}: {whole.name} has {count} images; expected at most {count}, or all")
    return ValidationImages(whole, whole if len(indices) == count else whole.subset(indices), rule)


def pixel_budget(stages: Stages, interval: int) -> int:
    """Return the LQ pixels that one validation may have under `auto`: a tenth of the training, in the stage with the fewest per step.

    Args:
        stages: patch and batch sizes.
        interval: optimizer steps between two validations.
    """
    step = min(batch * patch**2 for batch, patch in zip(stages.batch_size, stages.patch_size, strict=True))
    return _PASSES * interval * step // 10


def _affordable(pixels: Sequence[int], budget: int) -> list[int]:
    sizes = np.asarray(pixels)
    most = min(len(sizes), budget // int(sizes.min()))
    candidates = (evenly_spaced(number, len(sizes)) for number in range(most, 1, -1))
    return next((indices for indices in candidates if sizes[indices].sum() <= budget), evenly_spaced(1, len(sizes)))


def _files(test_set: TestSet) -> list[Any]:
    return [pair.hq.resolve() for pair in test_set.pairs]
