"""An inspection as a self-contained page."""

import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from irformer.dynamics.figures import position_bias_pictures
from irformer.dynamics.selection import GROUPS
from irformer.inspection.checkpoint_report import Inspection
from irformer.inspection.inspection_tables import facts, tables
from irformer.precision import LARGEST_HALF
from irformer.reporting.html import data_uri, write_html

# Attention layers whose biases are drawn; of more, every second, third, ... is.
_DRAWN = 12


def write_inspection_page(path: Path, found: Inspection) -> None:
    """Write an inspection to an HTML file that loads nothing from elsewhere: facts, verdict, figures and tables.

    Args:
        path: the file to write.
        found: the inspection.
    """
    names = list(found.bias_tables)
    drawn = names[:: -(-len(names) // _DRAWN)] if names else []
    figures = [("Magnitude of the features by depth", _png_of_layers(found))] if found.layers else []
    if drawn:
        what = "Relative position biases" + (f" of {len(drawn)} of {len(names)} attention layers" if len(drawn) < len(names) else "")
        figures.append((what, _png_of_biases(found, drawn)))
    write_html(
        path,
        "inspection.html.j2",
        title=f"{found.description.name}: {found.verdict.words}",
        facts=facts(found),
        verdict=found.verdict,
        figures=[(title, data_uri(png, "image/png")) for title, png in figures],
        tables=tables(found),
    )


def _png_of_layers(found: Inspection) -> bytes:
    """Draw the largest value and the root mean square after each group and block, and the limit of float16."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(found.layers))
    axis.plot(places, [layer.max_abs for layer in found.layers], color="#d55e00", lw=1, marker="o", ms=3, label="largest value")
    axis.plot(places, [layer.mean_square**0.5 for layer in found.layers], color="#0072b2", lw=1, marker="o", ms=3, label="root mean square")
    groups = [place for place, layer in enumerate(found.layers) if layer.kind == GROUPS]
    axis.plot(groups, [found.layers[place].max_abs for place in groups], "D", color="#d55e00", ms=6, label="groups")
    axis.axhline(LARGEST_HALF, color="0.3", ls="--", lw=1)
    axis.text(0, LARGEST_HALF, "largest float16", fontsize=8, color="0.3", va="bottom")
    axis.set_yscale("log")
    axis.set_xlabel("groups and blocks in the order of computation")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="best")
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    return buffer.getvalue()


def _png_of_biases(found: Inspection, names: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "biases.png"
        position_bias_pictures({name: found.bias_tables[name] for name in names}, file)
        return file.read_bytes()
