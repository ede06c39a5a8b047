"""Forest plots for HTML pages: differences with their confidence intervals beside a line at 0."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irformer.errors import UserError
from irformer.reporting.html import Fragment, asset, render
from irformer.reporting.tables import Number

_ROOM = 0.06  # of the axis beyond the widest interval


@dataclass(frozen=True)
class Interval:
    """A difference.

    Args:
        label: what is subtracted from what.
        mean: the difference.
        low: lower end of its interval; None if it has none.
        high: upper end of its interval; None if it has none.
        better: whether the difference favors the first of the two; None if it is within the noise.
        note: the conclusion in words.
    """

    label: str
    mean: Number
    low: Number | None = None
    high: Number | None = None
    better: bool | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """The difference and its interval."""
        ends = f" [{self.low.text}, {self.high.text}]" if self.low is not None and self.high is not None else ""
        return f"{self.mean.text}{ends}"

    @property
    def values(self) -> list[float]:
        """The mean and the ends of the interval."""
        return [number.value for number in (self.mean, self.low, self.high) if number is not None]


@dataclass(frozen=True)
class Forest:
    """A plot of differences on one axis.

    Args:
        title: the heading.
        intervals: the differences, from top to bottom.
        note: a sentence below the heading.
    """

    title: str
    intervals: Sequence[Interval]
    note: str = ""


def forests(plots: Sequence[Forest]) -> Fragment:
    """Return forest plots as part of a page; they need no script.

    Args:
        plots: at least one plot.

    Raises:
        UserError: there are no plots, or a plot has no finite difference.
    """
    if not plots:
        raise UserError("forest plots: found none, expected at least one")
    html = render("forest/forest.html.j2", plots=[_placed(plot) for plot in plots])
    return Fragment(html, asset("forest/forest.css"))


def _placed(plot: Forest) -> dict[str, Any]:
    """Return a plot with all values as percentages of the width of its axis, which includes 0."""
    values = [value for interval in plot.intervals for value in interval.values if math.isfinite(value)]
    if not values:
        raise UserError(f"forest plot {plot.title}: found no finite difference, expected at least one")
    low, high = min(0.0, *values), max(0.0, *values)
    room = _ROOM * ((high - low) or 1.0)

    def place(number: Number | None) -> float | None:
        if number is None or not math.isfinite(number.value):
            return None
        return round(100 * (number.value - low + room) / (high - low + 2 * room), 3)

    rows = [
        {
            "label": interval.label,
            "text": interval.text,
            "note": interval.note,
            "kind": {True: "better", False: "worse", None: "noise"}[interval.better],
            "mean": place(interval.mean),
            "low": place(interval.low),
            "high": place(interval.high),
        }
        for interval in plot.intervals
    ]
    return {"title": plot.title, "note": plot.note, "zero": place(Number(0.0)), "rows": rows}
