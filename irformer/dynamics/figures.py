"""Figures of training dynamics, from dynamics.csv."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from irformer.dynamics.dynamics_csv import Source, read_rows
from irformer.dynamics.parameters import smoothness
from irformer.dynamics.selection import GROUPS


@dataclass(frozen=True)
class Curve:
    """A statistic of one layer during training: steps and values, both [N]."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


Dynamics = dict[str, list[Curve]]  # by statistic, one curve per layer in order of depth


def read_dynamics(path: Path, kind: str = GROUPS, source: Source = "probe") -> Dynamics:
    """Read the curves of one kind of layers from a run's dynamics.csv.

    Args:
        path: the file; `irformer.dynamics.dynamics_csv` describes it.
        kind: the word of `callbacks.probe.layers` that selected the layers.
        source: what the values were computed from.
    """
    points: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for row in read_rows(path):
        if (row.kind, row.source) == (kind, source):
            points[row.statistic, row.layer].append((row.step, row.value))
    dynamics: Dynamics = defaultdict(list)
    for (statistic, _), values in sorted(points.items()):
        steps, numbers = zip(*values, strict=True)
        dynamics[statistic].append(Curve(np.array(steps), np.array(numbers)))
    return dict(dynamics)


def figure1(arms: dict[str, Dynamics], channels: Sequence[int], path: Path) -> None:
    """Plot the paper's Figure 1 for any runs: feature magnitude and channel entropy by depth and iteration, one column per arm.

    Args:
        arms: dynamics by column title.
        channels: C of each group's output; an entropy of ln C means that all channels have the same magnitude.
        path: the image file, PNG or SVG.
    """
    depth = len(next(iter(arms.values()))["mean_square"])
    sizes = sorted(set(channels))
    colors = matplotlib.colormaps["viridis_r"].resampled(depth)
    figure = Figure(figsize=(1.6 + 3.6 * len(arms), 6.4), layout="constrained")
    axes = figure.subplots(2, len(arms), sharex=True, sharey="row", squeeze=False)
    for column, (title, dynamics) in enumerate(arms.items()):
        magnitude, entropy = axes[0, column], axes[1, column]
        for layer in range(depth):
            curve = dynamics["mean_square"][layer]
            magnitude.plot(curve.steps, curve.values, color=colors(layer), lw=1.8)
            curve = dynamics["channel_entropy"][layer]
            entropy.plot(curve.steps, curve.values, color=colors(layer), lw=1.8)
        magnitude.set_title(title, fontsize=11)
        magnitude.set_yscale("log")
        for size in sizes:
            entropy.axhline(np.log(size), color="0.5", lw=1, ls="--")
        entropy.set_ylim(0, np.log(sizes[-1]) * 1.08)
        entropy.set_xlabel("training iterations")
        for axis in (magnitude, entropy):
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("feature magnitude\n(mean square of a group's output)")
    axes[1, 0].set_ylabel("channel entropy\n(nats; few channels dominate at 0)")
    for size in sizes:
        uniform = f"ln {size}: all channels alike"
        axes[1, 0].text(0.02, np.log(size), uniform, transform=axes[1, 0].get_yaxis_transform(), fontsize=8, color="0.4", va="bottom")
    bar = figure.colorbar(
        ScalarMappable(BoundaryNorm(np.arange(depth + 1) + 0.5, depth), colors), ax=axes, shrink=0.6, ticks=range(1, depth + 1)
    )
    bar.set_label("depth (group of blocks, the last is nearest the output)")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)


def position_bias_pictures(tables: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Draw the learned biases of relative positions (arXiv 2504.06629, Fig. 9): a row per attention layer, a column per head.

    Each picture has its own colors, white at 0; its largest absolute value and the layer's smoothness stand beside it.

    Args:
        tables: biases [heads, rows, columns] by the name of the layer, from `irformer.dynamics.parameters.position_biases` or vectors.csv.
        path: the image file, PNG or SVG.
    """
    columns = max(len(table) for table in tables.values())
    figure = Figure(figsize=(3.2 + 1.1 * columns, 0.4 + 1.25 * len(tables)), layout="constrained")
    axes = figure.subplots(len(tables), columns, squeeze=False)
    for row, (name, table) in zip(axes, tables.items(), strict=True):
        for head, axis in enumerate(row):
            axis.set_axis_off()
            if head < len(table):
                limit = float(np.abs(table[head]).max()) or 1.0
                axis.imshow(table[head], cmap="RdBu_r", vmin=-limit, vmax=limit)
                axis.set_title(f"±{limit:.2g}", fontsize=7, pad=2)
        text = f"{name}\nsmoothness {smoothness(table):.2f}"
        row[0].text(-0.15, 0.5, text, transform=row[0].transAxes, ha="right", va="center", fontsize=7)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)
