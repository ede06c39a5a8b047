"""Confidence intervals of the difference between two arms trained with few seeds and evaluated on few images.

Both seeds and images are samples: of the runs that could have been trained, and of the images that could have been used. An interval over
images alone says nothing about the next seed. The 95 % interval here covers both. At each end, it is the wider of

- the **percentile bootstrap** (`scipy.stats.bootstrap`), which resamples seeds and images independently with replacement, 10,000 times.
  Resampling 2 or 3 values underestimates their variance, so the bootstrap alone is too narrow;
- **Student's t**: mean +- sqrt(h_seeds^2 + h_images^2), where h is the half-width of the t interval of the mean over seeds (each averaged
  over the images) and over images (each averaged over the seeds). If the arms have no seeds in common, h_seeds is Welch's.

Coverage was measured with 4,000 simulations in each of 54 settings without a true difference (2, 3 or 5 seeds; 5, 20 or 100 images; normal
effects of seeds, of images, of both, and of each run on each image). The interval excluded 0 in 0.2 % to 5.6 % of the simulations of a
setting, 2.9 % on average; if only seeds or only images vary, Student's t excludes 0 in exactly 5 %. The bootstrap alone excluded 0 in up
to 50 % of the simulations with 2 seeds, 24 % with 3 and 16 % with 5.

The **p-value** belongs to the same rule: it is the smallest level at which the interval excludes 0, so it is below 0.05 where the 95 %
interval excludes 0. It is the larger one of those of the bootstrap and of Student's t.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 0
_CHUNK = 500  # resamples in memory at a time


def covers_seeds(arms: Sequence[NDArray[np.float64]]) -> bool:
    """Return whether an interval of these values can cover seeds: each array has two or more."""
    return all(len(arm) > 1 for arm in arms)


@dataclass(frozen=True)
class MeanDifference:
    """The mean of paired differences with its 95 % interval and the two-sided p-value of no difference."""

    mean: float
    interval: tuple[float, float]
    p_value: float


def difference_interval(arms: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the interval of `mean_difference`."""
    return mean_difference(arms, resamples).interval


def mean_difference(arms: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES) -> MeanDifference:
    """Return the mean difference with its deterministic interval and p-value, as defined in the module's docstring.

    Args:
        arms: one array of paired differences [seeds, images], or two arrays [seeds of an arm, images] with unpaired seeds and paired
            images. At least two images. If an array has a single seed, the interval covers only images.
        resamples: number of bootstrap resamples.
    """
    with_seeds = covers_seeds(arms)
    per_image = arms[0].mean(0) - arms[1].mean(0) if len(arms) == 2 else arms[0].mean(0)
    by_seed = [arm.mean(1) for arm in arms] if with_seeds else []

    def half_width(level: float) -> float:
        return math.hypot(_seed_half_width(by_seed, level) if by_seed else 0.0, _half_width(per_image, level))

    mean = float(per_image.mean())
    low, high, drawn = _bootstrap(arms if with_seeds else [per_image[None]], resamples)
    half = half_width(LEVEL)
    interval = min(low, mean - half), max(high, mean + half)
    return MeanDifference(mean, interval, max(_bootstrap_p_value(drawn), _t_p_value(mean, half_width)))


def _bootstrap(arms: Sequence[NDArray[np.float64]], resamples: int) -> tuple[float, float, NDArray[np.float64]]:
    """Return the percentile interval and the means of all resamples, which draw indices of each arm's seeds and of the images."""
    images = np.arange(arms[0].shape[1])
    seeds = [np.arange(len(arm)) for arm in arms if len(arm) > 1]

    def resampled_mean(*drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        *drawn_seeds, drawn_images = drawn  # [..., seeds] for each arm, and [..., images]
        if not drawn_seeds:
            return arms[0][0][drawn_images].mean(axis)
        means = [arm[own[..., :, None], drawn_images[..., None, :]].mean((-2, -1)) for arm, own in zip(arms, drawn_seeds, strict=True)]
        return means[0] - means[1] if len(means) == 2 else means[0]

    found = stats.bootstrap(
        (*seeds, images),
        resampled_mean,
        n_resamples=resamples,
        batch=min(_CHUNK, resamples),
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high), found.bootstrap_distribution


def _bootstrap_p_value(means: NDArray[np.float64]) -> float:
    """Return twice the smaller share of the resampled means on either side of 0, which cannot be smaller than the resolution."""
    fewer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(means) + 1))


def _t_p_value(mean: float, half_width: Callable[[float], float]) -> float:
    """Return 1 minus the level at which the interval of this half-width ends at 0."""
    if mean == 0:
        return 1.0
    most = 1 - 1e-12
    if half_width(most) <= abs(mean):
        return 1 - most
    return 1 - float(optimize.brentq(lambda level: half_width(level) - abs(mean), 0.0, most))


def _half_width(values: NDArray[np.float64], level: float) -> float:
    """Return the half-width of Student's t interval of the mean of [n] values."""
    return _t(len(values) - 1, level) * float(values.std(ddof=1)) / math.sqrt(len(values))


def _seed_half_width(arms: Sequence[NDArray[np.float64]], level: float) -> float:
    """Return the half-width of the t interval of the mean of one array [seeds], or of the difference of two means (Welch)."""
    if len(arms) == 1:
        return _half_width(arms[0], level)
    squares = [float(arm.var(ddof=1)) / len(arm) for arm in arms]  # squared standard errors
    if not sum(squares):
        return 0.0
    freedom = sum(squares) ** 2 / sum(square**2 / (len(arm) - 1) for square, arm in zip(squares, arms, strict=True))
    return _t(freedom, level) * math.sqrt(sum(squares))


def _t(freedom: float, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))
