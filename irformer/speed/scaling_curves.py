"""Cost against image size, width, depth and batch, in one figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import nn

from irformer.config.compose import build_network, model_config
from irformer.core.files import write_atomically
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.alternatives import milliseconds
from irformer.speed.measure import Timing, interleaved
from irformer.weights.overrides import override_model

MODEL = "swinir_light"
_BASE = {"size": 64, "width": 60, "blocks": 8, "batch": 1}
# What each panel varies; everything else stays at its base.
_SWEEPS: dict[str, tuple[int, ...]] = {
    "size": (32, 64, 128, 256),
    "width": (30, 60, 120, 240),
    "blocks": (4, 8, 16, 32),
    "batch": (1, 2, 4, 8),
}
_QUICK_SWEEPS: dict[str, tuple[int, ...]] = {"size": (16, 32, 64), "width": (12, 24, 48), "blocks": (2, 4, 8), "batch": (1, 2, 4)}
_QUICK_BASE = {"size": 32, "width": 24, "blocks": 2, "batch": 1}
_LABELS = {"size": "image size", "width": "channels", "blocks": "blocks", "batch": "images in a batch"}


@dataclass(frozen=True)
class Curve:
    """The cost along one quantity.

    Args:
        quantity: `size`, `width`, `blocks` or `batch`.
        norm: norm of the network.
        at: values of the quantity; for `size`, the number of pixels.
        timings: the time at each value.
        slope: slope of the line through the medians on logarithmic axes: 1 means proportional.
    """

    quantity: str
    norm: str
    at: tuple[int, ...]
    timings: tuple[Timing, ...]
    slope: float


def scaling_curves(norms: Sequence[str], device: torch.device, rounds: int, quick: bool) -> list[Curve]:
    """Time networks of growing size on growing images.

    Args:
        norms: norms of the networks.
        device: the device.
        rounds: number of rounds.
        quick: whether to measure three small sizes of each quantity instead of four.
    """
    base, sweeps = (_QUICK_BASE, _QUICK_SWEEPS) if quick else (_BASE, _SWEEPS)
    curves = []
    for quantity, values in sweeps.items():
        # All sizes and norms of a panel take turns, so that its slopes do not depend on the machine's moods.
        calls = {}
        for norm in norms:
            for value in values:
                at = base | {quantity: value}
                image = torch.rand(at["batch"], 3, at["size"], at["size"]).to(device)
                calls[f"{norm} {value}"] = partial(_restore, _network(norm, at["width"], at["blocks"]).to(device), image)
        timings = interleaved(calls, device, rounds, min_seconds=0.0)
        points = tuple(value**2 if quantity == "size" else value for value in values)
        for norm in norms:
            own = tuple(timings[f"{norm} {value}"] for value in values)
            curves.append(Curve(quantity, norm, points, own, log_slope(points, [timing.spread.median for timing in own])))
    return curves


def _network(norm: str, width: int, blocks: int) -> nn.Module:
    groups = max(1, blocks // 4)
    sizes: Mapping[str, Any] = {"embed_dim": width, "depths": [blocks // groups] * groups, "num_heads": [6] * groups}
    return build_network(override_model(model_config(MODEL, norm, 2, 3), sizes)).eval()


@torch.inference_mode()
def _restore(network: nn.Module, image: torch.Tensor) -> None:
    network(image)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the least-squares line through (log x, log y).

    >>> round(log_slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def scaling_table(curves: Sequence[Curve]) -> ResultTable:
    """Return one row for each curve, with its times in ms and its slope."""
    rows: list[list[Cell]] = []
    for curve in curves:
        times = ", ".join(
            f"{_value_text(curve.quantity, at)}: {milliseconds(timing.spread.median).text}"
            for at, timing in zip(curve.at, curve.timings, strict=True)
        )
        rows.append([_LABELS[curve.quantity], curve.norm, times, Number(curve.slope, 2)])
    notes = ["slope: on logarithmic axes, for the image size along the number of pixels; 1 means that time and quantity are proportional."]
    return ResultTable(f"Cost of restoring with {MODEL}", ["quantity", "norm", "ms at each value", "slope"], rows, notes)


def _value_text(quantity: str, value: int) -> str:
    """Return a value as text; a number of pixels as the size of a square image."""
    side = math.isqrt(value)
    return f"{side}x{side}" if quantity == "size" else str(value)


def draw_scaling(curves: Sequence[Curve], title: str, file: Path) -> None:
    """Draw the curves, one panel for each quantity, on logarithmic axes.

    Args:
        curves: the curves.
        title: what was measured where.
        file: image file, PNG or SVG.
    """
    quantities = list(dict.fromkeys(curve.quantity for curve in curves))
    figure = Figure(figsize=(3.4 * len(quantities), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for quantity, axes in zip(quantities, panels, strict=True):
        for curve in curves:
            if curve.quantity == quantity:
                median = [1000 * timing.spread.median for timing in curve.timings]
                axes.plot(curve.at, median, marker="o", lw=1.8, label=f"{curve.norm}, slope {curve.slope:.2f}")
                axes.fill_between(
                    curve.at,
                    [1000 * timing.spread.low for timing in curve.timings],
                    [1000 * timing.spread.high for timing in curve.timings],
                    alpha=0.2,
                )
        _style(axes, quantity, next(curve.at for curve in curves if curve.quantity == quantity))
    panels[0].set_ylabel("ms")
    figure.suptitle(title, fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    suffix = file.suffix.removeprefix(".")
    write_atomically(file, lambda temporary: figure.savefig(temporary, format=suffix, dpi=150))


def _style(axes: Axes, quantity: str, at: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([float(value) for value in at]))  # the measured values, instead of powers of ten
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _value_text(quantity, round(value))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.set_xlabel(_LABELS[quantity])
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=8)
