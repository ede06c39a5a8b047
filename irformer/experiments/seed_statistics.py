"""Means and intervals over few seeds.

The 95 % interval of a mean is, at each end, the wider of the percentile bootstrap over the seeds and Student's t. With two to five seeds
the bootstrap alone is too narrow; `irformer.runs.intervals` reports how much. A single seed has no interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 2000
_SEED = 0

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Args:
        mean: the mean.
        low: lower end; minus infinity for a single value.
        high: upper end; infinity for a single value.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, digits: int = 2, sign: bool = False, significant: bool = False) -> str:
        """Return mean and interval in words: 1.23 [1.01, 1.45], with so many decimals or significant digits."""
        form = f"{'+' if sign else ''}.{digits}{'g' if significant else 'f'}"
        interval = f"[{self.low:{form}}, {self.high:{form}}]" if self.bounded else "[one seed, no interval]"
        return f"{self.mean:{form}} {interval}"


def mean_of(values: Sequence[float]) -> Estimate:
    """Estimate the mean of the values of several seeds."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2 or not np.isfinite(array).all():
        return Estimate(mean, -math.inf, math.inf, len(array))
    half = _t(len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    low, high = np.quantile(_resampled(array).mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, min(float(low), mean - half), max(float(high), mean + half), len(array))


def difference_of(first: BySeed, second: BySeed) -> Estimate:
    """Estimate the mean of first minus second; seeds that both have are paired, and only these are used if there are two or more.

    Otherwise the interval is Welch's.
    """
    common = sorted(first.keys() & second.keys())
    if len(common) > 1 or len(first) == 1 or len(second) == 1:
        seeds = common or None
        values = [first[seed] - second[seed] for seed in seeds] if seeds else [_mean(first) - _mean(second)]
        return mean_of(values)
    a, b = (np.array(list(values.values())) for values in (first, second))
    squares = [float(values.var(ddof=1)) / len(values) for values in (a, b)]
    mean = float(a.mean() - b.mean())
    if not sum(squares):
        return Estimate(mean, mean, mean, len(a) + len(b))
    freedom = sum(squares) ** 2 / sum(square**2 / (len(values) - 1) for square, values in zip(squares, (a, b), strict=True))
    half = _t(freedom) * math.sqrt(sum(squares))
    return Estimate(mean, mean - half, mean + half, len(a) + len(b))


def contrast(weighted: Sequence[tuple[float, BySeed]]) -> Estimate:
    """Estimate a weighted sum of arms over the seeds that all of them have; weights are divided by the sum of the positive ones."""
    seeds = sorted(set.intersection(*(set(by_seed) for _, by_seed in weighted)))
    total = sum(max(weight, 0.0) for weight, _ in weighted)
    return mean_of([sum(weight * by_seed[seed] for weight, by_seed in weighted) / total for seed in seeds])


def deviation_ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Estimate the ratio of two standard deviations over seeds, with the interval of the F distribution, which assumes normal values."""
    a, b = (float(np.std(values, ddof=1)) if len(values) > 1 else math.nan for values in (first, second))
    count = len(first) + len(second)
    if not (a > 0 and b > 0):
        return Estimate(math.nan, -math.inf, math.inf, count)
    ratio = a / b
    low, high = (float(stats.f.ppf(p, len(first) - 1, len(second) - 1)) for p in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Estimate(ratio, ratio / math.sqrt(low), ratio / math.sqrt(high), count)


def _resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return resamples with replacement, [resamples, seeds], always the same ones."""
    indices = np.random.default_rng(_SEED).integers(0, len(values), (_RESAMPLES, len(values)))
    return values[indices]


def _mean(values: BySeed) -> float:
    return sum(values.values()) / len(values)


def _t(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
