"""How closely exported ONNX files agree with their networks, in float32 and float16."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irformer.graphs.agreement import Size
from irformer.graphs.graph_files import Written, write_onnx
from irformer.reporting.tables import Cell, ResultTable
from irformer.speed.bounded_memory import MODELS
from irformer.speed.peers import build
from irformer.speed.restoring import Restoring

CASES = tuple(Restoring(model, scale, size) for model, scale in MODELS for size in (128, 256, 384, 512))
QUICK = tuple(Restoring(model, scale, 32) for model, scale in MODELS)


@dataclass(frozen=True)
class ExportedGraph:
    """An ONNX file.

    Args:
        model: the model.
        norm: its norm.
        written: its precision, and its agreement with the network at each size.
    """

    model: str
    norm: str
    written: Written


def export_measured(model: str, scale: int | None, norm: str, sizes: Sequence[int]) -> list[ExportedGraph]:
    """Export a network in float32 and in float16, and compare both files with the network.

    Args:
        model: name of the model.
        scale: upscaling factor; None uses the default of the network's class.
        norm: name of the norm.
        sizes: height and width of the images in pixels.

    Raises:
        UserError: the model or the norm is unknown, or a file differs too much from the network.
    """
    network = build(model, norm, scale)
    squares = [Size(1, size, size) for size in sizes]
    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        path = Path(folder) / "network.onnx"
        return [ExportedGraph(model, norm, write_onnx(network, path, {}, half, sizes=squares)) for half in (False, True)]


def agreement_table(graphs: Sequence[ExportedGraph]) -> ResultTable:
    """Return the table of several files, one row for each."""
    sizes = sorted({found.size for graph in graphs for found in graph.written.agreements})
    rows: list[list[Cell]] = []
    for graph in graphs:
        by_size = {found.size: found for found in graph.written.agreements}
        cells = [f"{by_size[size].relative:.0e}, {by_size[size].decibels:.0f} dB" if size in by_size else None for size in sizes]
        rows.append([graph.model, graph.norm, graph.written.precision, *cells])
    notes = [
        "The largest difference from the network relative to its largest value, and the PSNR against it, in ONNX Runtime on a photo.",
        "fp16_safe: the residual stream stays in float32, because float16 alone misses 50 dB.",
    ]
    return ResultTable("Agreement of ONNX files with their networks", ["network", "norm", "file", *map(str, sizes)], rows, notes)
