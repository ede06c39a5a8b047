"""An interactive page of feature statistics as surfaces over depth and training step: the paper's Figure 1, to turn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from irformer.dynamics.figures import Dynamics
from irformer.errors import UserError
from irformer.reporting.html import write_html


@dataclass(frozen=True)
class _Quantity:
    """A statistic that the page shows.

    Args:
        key: the name in dynamics.csv.
        name: the heading.
        axis: the title of the vertical axis.
        note: a sentence below the heading.
        logarithmic: whether the vertical axis is logarithmic.
        colors: a perceptually uniform colormap of matplotlib that people with any color vision can read.
    """

    key: str
    name: str
    axis: str
    note: str
    logarithmic: bool
    colors: str


_QUANTITIES = (
    _Quantity(
        "mean_square",
        "Feature magnitude",
        "mean square",
        "Mean square of the output of each group of blocks, on a logarithmic axis.",
        True,
        "viridis",
    ),
    _Quantity(
        "channel_entropy",
        "Channel entropy",
        "entropy (nats)",
        "Entropy of the channels' shares in the output of each group of blocks. At 0, one channel dominates; at the dashed line, all "
        "channels have the same magnitude.",
        False,
        "cividis",
    ),
)
_COLORS = 64
_DIGITS = 6  # significant digits, as many as dynamics.csv has


def write_surfaces(
    path: Path,
    arms: Mapping[str, Dynamics],
    channels: Sequence[int],
    title: str = "Features over depth and training",
    lead: str = "",
) -> None:
    """Write an interactive page with the surfaces of feature magnitude and channel entropy of several runs, side by side.

    The page is a single HTML file without any request to a network.

    Args:
        path: the file to write.
        arms: dynamics by the run's title, as returned by `irformer.dynamics.figures.read_dynamics`. The runs can differ in depth and in
            recorded steps.
        channels: C of each group's output; an entropy of ln C means that all channels have the same magnitude.
        title: the heading.
        lead: a sentence below the heading.

    Raises:
        UserError: there are no runs, or the dynamics of a run lack a statistic.
    """
    write_html(path, "surface/page.html.j2", title=title, lead=lead, quantities=_QUANTITIES, data=_page_data(arms, channels))


def _page_data(arms: Mapping[str, Dynamics], channels: Sequence[int]) -> dict[str, Any]:
    """Return what the page's script reads (templates/surface/app.js)."""
    if not arms:
        raise UserError("surfaces: found no runs, expected at least one with a dynamics.csv")
    for title, dynamics in arms.items():
        missing = [quantity.key for quantity in _QUANTITIES if not dynamics.get(quantity.key)]
        if missing:
            raise UserError(
                f"dynamics of {' '.join(title.split())}: found {', '.join(dynamics) or 'nothing'}, expected {' and '.join(missing)} too; "
                "record them with the feature probe (callbacks.probe)"
            )
    references = [{"value": math.log(size), "label": f"ln {size}"} for size in sorted(set(channels))]
    return {
        "quantities": [
            {
                "key": quantity.key,
                "name": quantity.name,
                "axis": quantity.axis,
                "logarithmic": quantity.logarithmic,
                "colors": [to_hex(color) for color in matplotlib.colormaps[quantity.colors](np.linspace(0, 1, _COLORS))],
                "references": references if quantity.key == "channel_entropy" else [],
            }
            for quantity in _QUANTITIES
        ],
        "arms": [_arm(title, dynamics) for title, dynamics in arms.items()],
    }


def _arm(title: str, dynamics: Dynamics) -> dict[str, Any]:
    """Return a run's values by statistic and layer at all steps that any of them recorded."""
    curves = {quantity.key: dynamics[quantity.key] for quantity in _QUANTITIES}
    steps = np.unique(np.concatenate([curve.steps for layers in curves.values() for curve in layers]))
    return {
        "title": title,
        "steps": steps.tolist(),
        "values": {key: [_values(steps, curve.steps, curve.values) for curve in layers] for key, layers in curves.items()},
    }


def _values(steps: NDArray[np.int64], recorded: NDArray[np.int64], values: NDArray[np.float64]) -> list[float | None]:
    """Return a curve's value at each step: None where there is none or it is not finite, which JSON cannot express."""
    known = dict(zip(recorded.tolist(), values.tolist(), strict=True))
    found = (known.get(step, math.nan) for step in steps.tolist())
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in found]
