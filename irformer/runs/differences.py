"""The difference of two arms on one test set, and Holm's correction where several differences are tested."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irformer.runs.intervals import LEVEL, covers_seeds, mean_difference


def deviation(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Return the sample standard deviation (divisor n - 1), or None for a single value or if a value is infinite."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None


@dataclass(frozen=True)
class Difference:
    """Arm a minus arm b on one test set; the module's docstring defines the statistics.

    Args:
        a: label of the first arm.
        b: label of the second arm.
        seeds: the common seeds; empty if each arm was averaged over its own seeds.
        mean: mean of the paired differences.
        interval: 95 % interval of the mean, or None for a single image.
        covers_seeds: whether the interval covers seeds and images; if an arm has a single seed, it covers only images.
        seed_deviation: standard deviation over seeds, or None if it is unknown.
        higher_is_better: the direction of the metric.
        p_value: two-sided p-value of no difference (see `irformer.runs.intervals`), or None for a single image.
        adjusted_p_value: the p-value after Holm's correction; None without a correction.
        tested: number of differences in the correction.
    """

    a: str
    b: str
    seeds: list[int]
    mean: float
    interval: tuple[float, float] | None
    covers_seeds: bool
    seed_deviation: float | None
    higher_is_better: bool = True
    p_value: float | None = None
    adjusted_p_value: float | None = None
    tested: int = 1

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0, or Holm's correction leaves no significant difference."""
        if self.interval is None:
            return False
        return self.interval[0] <= 0 <= self.interval[1] or (self.adjusted_p_value or 0.0) >= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The conclusion in one sentence."""
        if self.interval is None:
            return "undecided: a single image has no interval"
        better = self.a if (self.mean > 0) == self.higher_is_better else self.b
        verdict = f"{better} is better"
        if self.interval[0] <= 0 <= self.interval[1]:
            verdict = "within the noise: the interval contains 0"
        elif self.within_noise:
            verdict = f"within the noise after Holm's correction for {self.tested} differences (p = {self.adjusted_p_value:.2g})"
        return verdict if self.covers_seeds else f"{verdict}; the interval covers only images, because an arm has a single seed"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for compare.json."""
        return {**asdict(self), "within_noise": self.within_noise, "verdict": self.verdict}


def paired_difference(
    a: str,
    b: str,
    first: Mapping[int, NDArray[np.float64]],
    second: Mapping[int, NDArray[np.float64]],
    higher_is_better: bool = True,
) -> Difference:
    """Compute the difference of two arms.

    Args:
        a: label of the first arm.
        b: label of the second arm.
        first: finite values [images] of the first arm, by seed.
        second: values of the second arm on the same images in the same order.
        higher_is_better: the direction of the metric.
    """
    common = sorted(first.keys() & second.keys())
    if common:
        arms = [np.stack([first[seed] - second[seed] for seed in common])]  # [seeds, images]
        mean, seed_deviation = float(arms[0].mean()), deviation(arms[0].mean(1))
    else:
        arms = [np.stack(list(arm.values())) for arm in (first, second)]
        own = [deviation(arm.mean(1)) for arm in arms]
        mean = float(arms[0].mean() - arms[1].mean())
        seed_deviation = None if None in own else math.hypot(*own)  # type: ignore[arg-type]
    found = mean_difference(arms) if arms[0].shape[1] > 1 else None
    interval, p_value = (found.interval, found.p_value) if found is not None else (None, None)
    return Difference(a, b, common, mean, interval, covers_seeds(arms), seed_deviation, higher_is_better, p_value)


def with_holm_correction(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences with p-values adjusted by Holm's step-down method, if there is more than one.

    In ascending order, each p-value is multiplied by the number of those that are not smaller, and is at least the one before.
    """
    tested = sorted((difference.p_value, i) for i, difference in enumerate(differences) if difference.p_value is not None)
    if len(tested) < 2:
        return list(differences)
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, (p_value, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_value))
        adjusted[i] = largest
    return [replace(difference, adjusted_p_value=adjusted.get(i), tested=len(tested)) for i, difference in enumerate(differences)]
