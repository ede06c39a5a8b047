"""Tables of metrics, and pages of results."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from irformer.core.files import write_atomically
from irformer.data.test_sets import TestSet
from irformer.evaluation.evaluate import Metrics, SetResult, published_rows
from irformer.evaluation.restorers import Restorer
from irformer.metrics import METRICS, MetricTraits
from irformer.reporting.tables import Cell, Column, Number, Numbers, Part, ResultTable
from irformer.tasks.task import Task


def readable_console() -> Console:
    """A console that does not fold tables in a log file or a pipe to the 80 columns of a terminal that is not there."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def format_metrics(metrics: Metrics) -> str:
    """Metrics of one cell as papers print them: PSNR with two decimals, SSIM with four."""
    return " / ".join(format_metric(name, value) for name, value in metrics.items())


def format_metric(name: str, value: float) -> str:
    """One metric as papers print it."""
    return Number(value, known_traits(name).digits).text


def known_traits(name: str, traits: Mapping[str, MetricTraits] | None = None) -> MetricTraits:
    """The traits of a metric: the given ones, those of the built-in metric of that name, or the defaults."""
    if traits is not None and name in traits:
        return traits[name]
    return METRICS[name].traits if name in METRICS else MetricTraits()


def metric_numbers(
    metrics: Mapping[str, float],
    names: Sequence[str],
    traits: Mapping[str, MetricTraits] | None = None,
    deviations: Mapping[str, float | None] | None = None,
) -> Numbers:
    """A cell of metrics.

    Args:
        metrics: values by name.
        names: of the column's metrics, in their order; what `metrics` lacks is missing in the cell.
        traits: of the metrics that are not built in.
        deviations: standard deviations by name.
    """
    spreads = deviations or {}
    return Numbers(
        tuple(
            Number(metrics[name], known_traits(name, traits).digits, deviation=spreads.get(name)) if name in metrics else None
            for name in names
        )
    )


def metric_column(name: str, metrics: Sequence[str], traits: Mapping[str, MetricTraits] | None = None) -> Column:
    """A column of metrics, for cells by `metric_numbers`."""
    return Column(name, tuple(Part(metric, known_traits(metric, traits).higher_is_better) for metric in metrics))


def benchmark_table(task: Task, results: Mapping[str, Sequence[SetResult]], published: bool = True) -> ResultTable:
    """Results on test sets, one row for each restorer, with the published rows of the task below them.

    A published row that was measured by another rule is marked, and the rule is told below the table.

    Args:
        task: what was measured, and how.
        results: for each restorer its results, on the same test sets.
        published: add the published rows.
    """
    traits = {name: metric.traits for name, metric in task.metrics.items()}
    metrics = list(traits)
    first = next(iter(results.values()))
    sets = [result.name for result in first]
    rows: list[list[Cell]] = [[name, *(metric_numbers(result.metrics, metrics, traits) for result in row)] for name, row in results.items()]
    notes = ["LQ images: " + ", ".join(f"{result.name} {result.lq_source}" for result in first) + "."]
    notes += [remark for result in first for remark in result.remarks]
    marks: dict[tuple[str, ...], str] = {}
    for known in published_rows(task, sets) if published else []:
        cells = [metric_numbers(known.test_sets.get(name, {}), metrics, traits) for name in sets]
        trained_on = f" ({known.train_data})" if known.train_data else ""
        mark = marks.setdefault(known.differences, "*" * (len(marks) + 1)) if known.differences else ""
        rows.append([f"{known.model}{trained_on}, {known.source}{mark}", *cells])
    notes += [f"{mark} measured by another rule: {'; '.join(differences)}." for differences, mark in marks.items()]
    columns = [metric_column(name, metrics, traits) for name in sets]
    return ResultTable(f"{task.label}: {' / '.join(metrics)}", ["", *columns], rows, notes)


@dataclass(frozen=True)
class CropRow:
    """Parts of one image side by side, each with its caption."""

    name: str
    images: dict[str, NDArray[np.uint8]]


def crop_rows(test_set: TestSet, restorers: dict[str, Restorer], images: int = 3, side: int = 96) -> list[CropRow]:
    """The most detailed part of the first images of a test set: what each restorer makes of it, and the truth.

    Args:
        test_set: degraded and clean images.
        restorers: by caption.
        images: how many.
        side: of the part, in HQ pixels.
    """
    rows = []
    for i in range(min(images, len(test_set))):
        pair = test_set[i]
        part = _most_detailed(pair.hq, side)
        shown = {caption: restorer(pair.lq)[part] for caption, restorer in restorers.items()}
        rows.append(CropRow(pair.name, {**shown, "truth": pair.hq[part]}))
    return rows


def _most_detailed(image: NDArray[np.uint8], side: int) -> tuple[slice, slice]:
    """The square of [H, W, C] with the strongest edges, on a grid of half its side."""
    height, width = image.shape[:2]
    edges = np.abs(cv2.Laplacian(image.mean(2), cv2.CV_64F))
    places = [(top, left) for top in range(0, max(1, height - side), side // 2) for left in range(0, max(1, width - side), side // 2)]
    top, left = max(places, key=lambda place: edges[place[0] : place[0] + side, place[1] : place[1] + side].mean())
    return slice(top, top + side), slice(left, left + side)


def write_page(
    path: Path,
    title: str,
    facts: dict[str, str],
    tables: Sequence[ResultTable],
    remarks: Sequence[str] = (),
    figure: Path | None = None,
    crops: Sequence[CropRow] = (),
) -> None:
    """Write an HTML page that needs no other file.

    Args:
        path: of the page.
        title: its heading.
        facts: what was run, as name and value.
        tables: of results.
        remarks: sentences below the tables.
        figure: a PNG file.
        crops: parts of images.
    """
    loader = jinja2.PackageLoader("irformer.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=title,
        facts=facts,
        tables=tables,
        remarks=remarks,
        figure=_data_uri(figure.read_bytes()) if figure else None,
        crops=[(row.name, [(caption, _data_uri(_png(image))) for caption, image in row.images.items()]) for row in crops],
    )
    write_atomically(path, lambda aside: aside.write_bytes(page.encode("utf-8", "backslashreplace")))


def _png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
