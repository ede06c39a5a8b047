"""What was measured: the records of an experiment's arms at one budget, and numbers computed from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from irformer.dynamics.figures import Curve
from irformer.experiments.arm_records import Record
from irformer.experiments.budgets import Budget
from irformer.experiments.lab_arms import Arm
from irformer.experiments.seed_statistics import Estimate, deviation_ratio, difference_of, mean_of
from irformer.runs.intervals import difference_interval

Measure = Callable[[Record, int], float]


@dataclass(frozen=True)
class Quantity:
    """A number of a run at a step.

    Args:
        name: the name in tables and CSV.
        measure: computes it from the record and the step.
        digits: decimals to print.
        geometric: positive, and compared by ratios: its mean and interval are those of its logarithm, and it is printed with three digits.
    """

    name: str
    measure: Measure
    digits: int = 2
    geometric: bool = False

    def estimate(self, values: Sequence[float]) -> Estimate:
        """Estimate the mean over seeds."""
        if not self.geometric:
            return mean_of(values)
        logs = mean_of([math.log10(value) for value in values])
        low, high = (10**end if logs.bounded else end for end in (logs.low, logs.high))
        return Estimate(10**logs.mean, low, high, logs.count)

    def text(self, estimate: Estimate) -> str:
        """Return an estimate in words."""
        return estimate.text(3, significant=True) if self.geometric else estimate.text(self.digits)


@dataclass(frozen=True)
class Measured:
    """The records of an experiment.

    Args:
        budget: the budget.
        arms: arms by key.
        records: records by key and seed.
    """

    budget: Budget
    arms: Mapping[str, Arm]
    records: Mapping[str, Mapping[int, Record]]

    @cached_property
    def step(self) -> int:
        """The last step that all arms have reached."""
        return min(int(record.results["trained_steps"]) for seeds in self.records.values() for record in seeds.values())

    def last_step(self, key: str) -> int:
        """Return the last step of an arm."""
        return min(int(record.results["trained_steps"]) for record in self.records[key].values())

    def title(self, key: str) -> str:
        """Return the title of an arm."""
        return self.arms[key].title

    def values(self, key: str, quantity: Quantity, step: int | None = None) -> dict[int, float]:
        """Return a quantity of an arm by seed, at the common step by default."""
        return {seed: quantity.measure(record, step or self.step) for seed, record in self.records[key].items()}

    def mean(self, key: str, quantity: Quantity, step: int | None = None) -> Estimate:
        """Estimate the mean of a quantity over the seeds."""
        return quantity.estimate(list(self.values(key, quantity, step).values()))

    def difference(self, first: str, second: str, quantity: Quantity, step: int | None = None) -> Estimate:
        """Estimate the difference of two arms in a quantity, over the seeds."""
        return difference_of(self.values(first, quantity, step), self.values(second, quantity, step))

    def deviation_ratio(self, first: str, second: str, quantity: Quantity) -> Estimate:
        """Estimate the ratio of the standard deviations over the seeds of two arms."""
        return deviation_ratio(*(list(self.values(key, quantity).values()) for key in (first, second)))

    def quality_difference(self, first: str, second: str) -> Estimate:
        """Estimate the difference of two arms in the first metric on the largest common test set, over seeds and images."""
        sets = [set_of(next(iter(self.records[key].values()))) for key in (first, second)]
        metric = metric_of(next(iter(self.records[first].values())))
        assert sets[0] == sets[1], "arms that are compared share their test sets"
        a, b = ({seed: _per_image(record, sets[0], metric) for seed, record in self.records[key].items()} for key in (first, second))
        common = sorted(a.keys() & b.keys())
        arrays = [np.stack([a[seed] - b[seed] for seed in common])] if common else [np.stack(list(arm.values())) for arm in (a, b)]
        mean = float(arrays[0].mean() - (arrays[1].mean() if len(arrays) == 2 else 0.0))
        if min(len(array) for array in arrays) < 2:  # the images alone say nothing about the next seed
            return Estimate(mean, -math.inf, math.inf, 1)
        return Estimate(mean, *difference_interval(arrays, resamples=2000), count=len(arrays[0]))


def set_of(record: Record) -> str:
    """Return the test set of a run that has the most images."""
    sets = record.results["test_sets"]
    return max(sets, key=lambda name: int(sets[name]["images"]))


def metric_of(record: Record) -> str:
    """Return the first metric of a run's task."""
    return str(record.results["protocol"]["metrics"][0])


def _per_image(record: Record, test_set: str, metric: str) -> NDArray[np.float64]:
    return np.array([values[metric] for values in record.results["test_sets"][test_set]["per_image"].values()])


def value_at(curve: Curve, step: int) -> float:
    """Return the value of a curve at the last recorded step that is not after `step`."""
    return float(curve.values[max(int(np.searchsorted(curve.steps, step, side="right")) - 1, 0)])


def over_depth(record: Record, statistic: str, choose: Callable[[Sequence[float]], float], step: int) -> float:
    """Return a statistic at a step, chosen among the groups of the network."""
    return choose([value_at(curve, step) for curve in record.dynamics[statistic]])


def magnitude(record: Record, step: int) -> float:
    """Return the feature magnitude: the mean square of the output of the group where it is largest."""
    return max(over_depth(record, "mean_square", max, step), 1e-12)


def log_magnitude(record: Record, step: int) -> float:
    """Return the decimal logarithm of the feature magnitude."""
    return math.log10(magnitude(record, step))


def entropy(record: Record, step: int) -> float:
    """Return the channel entropy in nats of the group where it is smallest."""
    return over_depth(record, "channel_entropy", min, step)


def validation(record: Record, step: int) -> float:
    """Return the first metric of the averaged weights on the validation set, at the last validation up to a step."""
    return value_at(shifted(record.metrics[f"val/{metric_of(record)}"]), step)


def shifted(curve: Curve) -> Curve:
    """Return a logged curve with completed steps in place of Lightning's, which count from 0."""
    return Curve(curve.steps + 1, curve.values)


def quality(record: Record, step: int) -> float:
    """Return the first metric of the best averaged weights on the test set with the most images."""
    return float(record.results["test_sets"][set_of(record)]["metrics"][metric_of(record)])


MAGNITUDE = Quantity("magnitude", magnitude, geometric=True)
LOG_MAGNITUDE = Quantity("log10 magnitude", log_magnitude)
ENTROPY = Quantity("entropy (nats)", entropy)
VALIDATION = Quantity("validation PSNR (dB)", validation)
QUALITY = Quantity("PSNR (dB)", quality)
