"""Charts for HTML pages: values over training steps, which can be read under the pointer and by keyboard."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from irformer.errors import UserError
from irformer.reporting.html import Fragment, asset, render

_POINTS = 1000  # that a curve has at most
_DIGITS = 6  # significant digits, as many as dynamics.csv has
_COLORS = 6  # series colors of base.css
_DASHES = ("", "7 4", "2 4")


@dataclass(frozen=True)
class Series:
    """A curve of a chart.

    Args:
        name: the name in the legend.
        steps: [N], ascending.
        values: [N]; NaN and infinity leave a gap.
    """

    name: str
    steps: Sequence[int] | NDArray[np.int64]
    values: Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Chart:
    """A chart of values over steps.

    Args:
        title: the heading.
        series: at least one curve.
        unit: the unit of the values.
        note: a sentence below the heading.
        logarithmic: whether the vertical axis is logarithmic at first; a check box changes it.
        ordered: whether the curves have an order, such as the depth of layers: colors are then a scale from light to dark.
        references: values of dashed horizontal lines, by label.
    """

    title: str
    series: Sequence[Series]
    unit: str = ""
    note: str = ""
    logarithmic: bool = False
    ordered: bool = False
    references: Mapping[str, float] = field(default_factory=dict)


def charts(charts: Sequence[Chart]) -> Fragment:
    """Return charts as part of a page.

    A curve of many values is thinned to the smallest and the largest of each of 500 equal parts, so all values shown are recorded ones.

    Args:
        charts: at least one chart.

    Raises:
        UserError: there are no charts, or a chart has no values.
    """
    if not charts:
        raise UserError("charts: found none, expected at least one")
    for chart in charts:
        if not any(len(series.steps) for series in chart.series):
            raise UserError(f"chart {chart.title}: found no values, expected at least one")
    parts = [
        {
            "title": chart.title,
            "note": chart.note,
            "thinned": " (thinned)" if any(len(series.steps) > _POINTS for series in chart.series) else "",
            "data": _data(chart),
        }
        for chart in charts
    ]
    scripts = asset("numbers.js") + "\n" + asset("charts/charts.js")
    return Fragment(render("charts/charts.html.j2", charts=parts), asset("charts/charts.css"), scripts)


def _data(chart: Chart) -> dict[str, Any]:
    """Return what the page's script reads (templates/charts/charts.js)."""
    shown = [series for series in chart.series if len(series.steps)]
    return {
        "unit": chart.unit,
        "logarithmic": chart.logarithmic,
        "references": [{"label": label, "value": value} for label, value in chart.references.items()],
        "series": [
            {"name": series.name, **_points(series), **(_ordered_color(i, len(shown)) if chart.ordered else _color(i))}
            for i, series in enumerate(shown)
        ],
    }


def _color(index: int) -> dict[str, str]:
    return {"color": f"var(--series-{index % _COLORS + 1})", "dash": _DASHES[index // _COLORS % len(_DASHES)]}


def _ordered_color(index: int, count: int) -> dict[str, str]:
    """Return a color of a perceptually uniform scale, without the end that would vanish on the page's background."""
    position = index / max(1, count - 1)
    light, dark = (to_hex(matplotlib.colormaps["viridis"](at)) for at in (0.82 * (1 - position), 0.3 + 0.7 * position))
    return {"color": f"light-dark({light}, {dark})", "dash": ""}


def _points(series: Series) -> dict[str, list[Any]]:
    steps, values = np.asarray(series.steps), np.asarray(series.values, np.float64)
    kept = _thinned(values)
    return {
        "steps": steps[kept].tolist(),
        "values": [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values[kept].tolist()],
    }


def _thinned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places of the values that are kept: the first, the last, and the extremes of equal parts."""
    count = len(values)
    if count <= _POINTS:
        return np.arange(count)
    kept = {0, count - 1}
    for part in np.array_split(np.arange(count), _POINTS // 2 - 1):
        finite = part[np.isfinite(values[part])]
        kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])} if len(finite) else {int(part[0])}
    return np.array(sorted(kept))
