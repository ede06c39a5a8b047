"""Times alternatives of the same work against each other in one process.

Each round calls every alternative once, so a machine that slows down for a while slows down all of them. Medians summarize the rounds.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

MIN_SECONDS = 0.02  # shorter calls are repeated, so that the clock and the start of the device's queue do not count
WARMUP = 1  # and the call that finds the number of repeats

_RESAMPLES = 1000


@dataclass(frozen=True)
class Spread:
    """A median, or a ratio of medians, with its spread.

    Args:
        median: the median or the ratio.
        low: lower end of the spread: the first quartile, or the lower end of the 95 % interval of a ratio.
        high: upper end of the spread.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """The time of one alternative.

    Args:
        name: the alternative.
        seconds: seconds per call in each round.
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Median and quartiles in seconds."""
        return spread(self.seconds)


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of some values, interpolated between the two nearest values.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(of: Timing, to: Timing, by_mean: bool = False) -> Spread:
    """Return the ratio of the medians of two timings, with its 95 % interval.

    The interval is that of a bootstrap over rounds: both alternatives keep the rounds that are drawn, because they ran side by side.

    >>> ratio(Timing("a", (2.0, 4.0, 6.0)), Timing("b", (1.0, 2.0, 3.0)))
    Spread(median=2.0, low=2.0, high=2.0)

    Args:
        of: numerator.
        to: denominator.
        by_mean: divide means instead of medians, where what happens in a few rounds only must count.

    Raises:
        ValueError: the timings have different numbers of rounds.
    """
    pairs = np.array([*zip(of.seconds, to.seconds, strict=True)])
    drawn = np.random.default_rng(0).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    center = np.mean if by_mean else np.median
    found, resampled = center(pairs, axis=0), center(pairs[drawn], axis=1)
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], (0.025, 0.975))
    return Spread(float(found[0] / found[1]), float(low), float(high))


def interleaved(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, min_seconds: float = MIN_SECONDS
) -> dict[str, Timing]:
    """Time alternatives in turn.

    Args:
        calls: the alternatives by name. Every call does its whole work again.
        device: where they work; a GPU is synchronized before and after each measurement.
        rounds: how often each alternative is measured, after a warm-up.
        min_seconds: duration of one measurement, reached by repeating short calls.

    Returns:
        The timings by name.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(WARMUP):
            call()
        repeats[name] = max(1, math.ceil(min_seconds / time_once(call, 1, device)))
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    enabled = gc.isenabled()
    gc.disable()  # as timeit does: otherwise one alternative pays for the garbage of another
    try:
        for number in range(rounds):
            gc.collect()
            start = number % len(names)  # no alternative always follows the same one
            for name in names[start:] + names[:start]:
                seconds[name].append(time_once(calls[name], repeats[name], device))
    finally:
        if enabled:
            gc.enable()
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def time_once(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the seconds of one call, averaged over `repeats` calls."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - started) / repeats


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work that was given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
