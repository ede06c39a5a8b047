"""The figures of result pages, in one style: readable at a width of 900 pixels, with colors for people with any color vision.

The same numbers give the same bytes: files hold no date, and the ids in an SVG do not depend on chance.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from irformer.core.files import write_atomically
from irformer.dynamics.figures import Curve
from irformer.experiments.arm_records import Record
from irformer.experiments.measured import Measured
from irformer.experiments.seed_statistics import Estimate

# Okabe and Ito (2008); the first three are those of the interactive pages, so an arm has one color in both.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
_LINES = ("-", "-", "-", "-", "--", "--", "--", "--")
_WIDTH = 9.0  # inches; 100 dots each
_DPI = 100
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "irformer",
}


def new_figure(height: float, rows: int = 1, columns: int = 1, sharex: bool = False) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure in the style and its axes [rows, columns]."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex)
        FigureCanvasAgg(figure)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PATH.png and PATH.svg."""
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        file = path.with_name(path.name + suffix)
        with matplotlib.rc_context(_STYLE):
            write_atomically(
                file,
                lambda temporary, suffix=suffix, metadata=metadata: figure.savefig(  # type: ignore[misc]
                    temporary, format=suffix[1:], dpi=_DPI, metadata=metadata
                ),
            )


def color(index: int) -> str:
    """Return the color of the arm with this place."""
    return COLORS[index % len(COLORS)]


def line(index: int) -> str:
    """Return the line style of the arm with this place."""
    return _LINES[index % len(_LINES)]


OfRecord = Callable[[Record], Curve]


def over_groups(statistic: str, choose: Callable[..., NDArray[np.float64]]) -> OfRecord:
    """Return a curve of a run: a statistic over the steps, chosen among its groups at each step."""

    def curve(record: Record) -> Curve:
        curves = record.dynamics[statistic]
        return Curve(curves[0].steps, choose(np.stack([one.values for one in curves]), axis=0))

    return curve


MAGNITUDE_CURVE = over_groups("mean_square", np.max)
ENTROPY_CURVE = over_groups("channel_entropy", np.min)


def plot_arms(axes: Axes, measured: Measured, keys: Sequence[str], of: OfRecord) -> None:
    """Plot a curve of each arm: the mean over the seeds, and the range of the seeds as a band."""
    for index, key in enumerate(keys):
        curves = [of(record) for record in measured.records[key].values()]
        steps = curves[0].steps
        values = np.stack([np.interp(steps, curve.steps, curve.values) for curve in curves])
        logarithmic = axes.get_yscale() == "log"
        middle = np.exp(np.log(np.maximum(values, 1e-12)).mean(0)) if logarithmic else values.mean(0)
        axes.plot(steps, middle, color=color(index), ls=line(index), label=measured.title(key))
        if len(values) > 1:
            axes.fill_between(steps, values.min(0), values.max(0), color=color(index), alpha=0.15, lw=0)


def dynamics_figure(measured: Measured, keys: Sequence[str] | None = None) -> Figure:
    """Plot magnitude and entropy of all arms over the steps."""
    keys = list(keys or measured.arms)
    figure, axes = new_figure(5.2 + 0.26 * ((len(keys) + 1) // 2), 1, 2)
    magnitude, entropy = axes[0]
    magnitude.set_yscale("log")
    plot_arms(magnitude, measured, keys, MAGNITUDE_CURVE)
    plot_arms(entropy, measured, keys, ENTROPY_CURVE)
    magnitude.set_title("Feature magnitude (mean square)")
    entropy.set_title("Channel entropy (nats)")
    entropy.set_ylim(bottom=0)
    for axis in (magnitude, entropy):
        axis.set_xlabel("training steps")
    _legend_below(figure, magnitude)
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)


def effects_figure(panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[Estimate]]]]) -> Figure:
    """Plot effects over the steps with their intervals.

    Args:
        panels: by the title of a panel, the steps and estimates of each effect by name.
    """
    figure, axes = new_figure(4.8, 1, len(panels), sharex=True)
    for axis, (title, effects) in zip(axes[0], panels.items(), strict=True):
        for index, (name, (steps, estimates)) in enumerate(effects.items()):
            axis.plot(steps, [estimate.mean for estimate in estimates], color=color(index), ls=line(index), label=name)
            if all(estimate.bounded for estimate in estimates):
                low, high = [e.low for e in estimates], [e.high for e in estimates]
                axis.fill_between(steps, low, high, color=color(index), alpha=0.15, lw=0)
        axis.axhline(0, color="0.3", lw=1)
        axis.set_title(title)
        axis.set_xlabel("training steps")
    _legend_below(figure, axes[0, 0])
    return figure


def interval_figure(rows: Mapping[str, Estimate], label: str, zero: str = "no difference") -> Figure:
    """Plot estimates as points with their intervals, one row each.

    Args:
        rows: estimates by name, from the top.
        label: label of the axis.
        zero: what the line at 0 means.
    """
    figure, axes = new_figure(1.9 + 0.45 * len(rows))
    axis = axes[0, 0]
    for place, estimate in enumerate(rows.values()):
        shade = COLORS[0] if estimate.low > 0 else COLORS[1] if estimate.high < 0 else "0.35"
        if estimate.bounded:
            axis.plot([estimate.low, estimate.high], [place, place], color=shade, lw=3, solid_capstyle="butt")
        axis.plot(estimate.mean, place, "o", color=shade, ms=8)
    axis.axvline(0, color="0.3", lw=1, ls="--")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"{label}\ndashed: {zero}")  # long names leave little width
    return figure


def levels_figure(levels: Sequence[str], arms: Mapping[str, Sequence[Sequence[float]]], label: str) -> Figure:
    """Plot values at named levels, such as PSNR by precision: one line per arm, and a dot per seed.

    Args:
        levels: names of the levels.
        arms: by title, the values of each seed at each level.
        label: label of the vertical axis.
    """
    figure, axes = new_figure(5.0)
    axis = axes[0, 0]
    for index, (title, by_seed) in enumerate(arms.items()):
        values = np.array(by_seed)
        places = np.arange(len(levels)) + 0.12 * (index - (len(arms) - 1) / 2)
        axis.plot(places, values.mean(0), color=color(index), ls=line(index), marker="o", ms=8, label=title)
        for one in values:
            axis.plot(places, one, "o", color=color(index), ms=4, alpha=0.5)
    axis.set_xticks(range(len(levels)), levels)
    axis.set_ylabel(label)
    axis.legend(frameon=False)
    return figure


def scatter_figure(arms: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str) -> Figure:
    """Plot two numbers of each channel against each other, one panel per arm with axes of its own; x is positive, on a logarithmic axis."""
    figure, axes = new_figure(4.6, 1, len(arms))
    for index, (axis, (title, (x, y))) in enumerate(zip(axes[0], arms.items(), strict=True)):
        axis.scatter(x, y, s=36, color=color(index), alpha=0.7, lw=0)
        axis.set_xscale("log")
        if max(x, default=1.0) < 100 * min(x, default=1.0):  # within two decades, powers of ten alone are too few labels
            axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("{x:g}")
        axis.set_title(title)
        axis.set_xlabel(x_label)
    axes[0, 0].set_ylabel(y_label)
    return figure


def tables_figure(arms: Mapping[str, Sequence[NDArray[np.float64]]]) -> Figure:
    """Plot square tables as pictures, one row per arm; each picture has a color scale of its own."""
    columns = max(len(tables) for tables in arms.values())
    figure, axes = new_figure(0.6 + 2.3 * len(arms), len(arms), columns)
    for row, (title, tables) in zip(axes, arms.items(), strict=True):
        for place, axis in enumerate(row):
            axis.grid(False)
            axis.set_xticks([])
            axis.set_yticks([])
            if place < len(tables):
                axis.imshow(tables[place], cmap="cividis")
                axis.set_title(f"head {place + 1}", fontsize=10)
            else:
                axis.set_visible(False)
        row[0].set_ylabel(title)
    return figure
