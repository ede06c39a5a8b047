"""Build tables of metrics and HTML reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from irformer.data.test_sets import TestSet
from irformer.evaluation.evaluate import Metrics, PublishedRow, SetResult, published_rows
from irformer.evaluation.restorers import Restorer
from irformer.metrics import METRICS, MetricTraits
from irformer.reporting.html import data_uri, write_html
from irformer.reporting.tables import Cell, Column, Number, Numbers, Part, ResultTable
from irformer.reporting.viewer import MAX_BYTES, ViewedImage, viewer
from irformer.tasks.task import Task


def readable_console() -> Console:
    """Return a console that does not wrap tables at 80 columns if the output is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def format_metrics(metrics: Metrics) -> str:
    """Format the metrics of one cell as papers do: PSNR with two decimals, SSIM with four."""
    return " / ".join(format_metric(name, value) for name, value in metrics.items())


def format_metric(name: str, value: float) -> str:
    """Format one metric as papers do."""
    return Number(value, known_traits(name).digits).text


def known_traits(name: str, traits: Mapping[str, MetricTraits] | None = None) -> MetricTraits:
    """Return the traits of a metric: the given ones, those of the built-in metric with this name, or the defaults."""
    if traits is not None and name in traits:
        return traits[name]
    return METRICS[name].traits if name in METRICS else MetricTraits()


def metric_numbers(
    metrics: Mapping[str, float],
    names: Sequence[str],
    traits: Mapping[str, MetricTraits] | None = None,
    deviations: Mapping[str, float | None] | None = None,
) -> Numbers:
    """Return a table cell with metrics.

    Args:
        metrics: values by name.
        names: names of the column's metrics, in order; a metric that `metrics` lacks is a missing value.
        traits: traits of metrics that are not built in.
        deviations: standard deviations by name.
    """
    deviations = deviations or {}
    return Numbers(
        tuple(
            Number(metrics[name], known_traits(name, traits).digits, deviation=deviations.get(name)) if name in metrics else None
            for name in names
        )
    )


def metric_column(name: str, metrics: Sequence[str], traits: Mapping[str, MetricTraits] | None = None) -> Column:
    """Return a column for cells created by `metric_numbers`."""
    return Column(name, tuple(Part(metric, known_traits(metric, traits).higher_is_better) for metric in metrics))


def benchmark_table(
    task: Task,
    results: Mapping[str, Sequence[SetResult]],
    published: bool = True,
    ranked: bool = False,
    departures: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ResultTable:
    """Return a table of results with one row per restorer, followed by the published rows of the task.

    Published rows measured under a different rule are marked and not ranked, and a note below the table names the rule.

    Args:
        task: the task, with its protocol.
        results: the results of each restorer; a restorer may lack sets.
        published: whether to add published rows.
        ranked: whether to mark the best and the second best numbers.
        departures: phrases for the title.
        notes: further sentences below the table.
    """
    traits = {name: metric.traits for name, metric in task.metrics.items()}
    metrics = list(traits)
    by_name = [{result.name: result for result in row} for row in results.values()]
    sets = {name: result for row in by_name for name, result in row.items()}
    rows: list[list[Cell]] = [
        [label, *(_set_cell(row.get(name), metrics, traits) for name in sets)] for label, row in zip(results, by_name, strict=True)
    ]
    below = ["LQ images: " + ", ".join(f"{name} {result.lq_source}" for name, result in sets.items()) + "."]
    below += dict.fromkeys(remark for row in results.values() for result in row for remark in result.remarks)
    below += notes
    marks: dict[tuple[str, ...], str] = {}
    unranked = set()
    for known in published_rows(task, list(sets)) if published else []:
        cells = [metric_numbers(known.test_sets.get(name, {}), metrics, traits) for name in sets]
        mark = marks.setdefault(known.differences, "*" * (len(marks) + 1)) if known.differences else ""
        if mark:
            unranked.add(len(rows))
        rows.append([f"{published_label(known)}{mark}", *cells])
    below += [f"{mark} measured under a different rule: {'; '.join(differences)}." for differences, mark in marks.items()]
    columns = [metric_column(name, metrics, traits) for name in sets]
    title = ", ".join([task.label, *departures])
    return ResultTable(f"{title}: {' / '.join(metrics)}", ["", *columns], rows, below, ranked, frozenset(unranked))


def published_label(row: PublishedRow) -> str:
    """Return the name of a published row in tables."""
    trained_on = f" ({row.train_data})" if row.train_data else ""
    return f"{row.model}{trained_on}, {row.source}"


def _set_cell(result: SetResult | None, metrics: Sequence[str], traits: Mapping[str, MetricTraits]) -> Cell:
    if result is None:
        return None
    if result.non_finite:
        return f"NaN or inf in {len(result.non_finite)} of {result.images}"
    return metric_numbers(result.metrics, metrics, traits)


@dataclass(frozen=True)
class CropRow:
    """Crops of one image, by caption."""

    name: str
    images: dict[str, NDArray[np.uint8]]


def crop_rows(test_set: TestSet, restorers: dict[str, Restorer], images: int = 3, side: int = 96) -> list[CropRow]:
    """Restore the first images of a test set, and return their most detailed crop from each restorer and from the ground truth.

    Args:
        test_set: degraded and clean images.
        restorers: restorers by caption.
        images: number of images.
        side: side of the crop in HQ pixels.
    """
    rows = []
    for i in range(min(images, len(test_set))):
        pair = test_set[i]
        part = _most_detailed(pair.hq, side)
        shown = {caption: restorer(pair.lq)[part] for caption, restorer in restorers.items()}
        rows.append(CropRow(pair.name, {**shown, "truth": pair.hq[part]}))
    return rows


def _most_detailed(image: NDArray[np.uint8], side: int) -> tuple[slice, slice]:
    """Return the square of [H, W, C] with the strongest edges, searched on a grid with a spacing of half its side."""
    height, width = image.shape[:2]
    edges = np.abs(cv2.Laplacian(image.mean(2), cv2.CV_64F))
    places = [(top, left) for top in range(0, max(1, height - side), side // 2) for left in range(0, max(1, width - side), side // 2)]
    top, left = max(places, key=lambda place: edges[place[0] : place[0] + side, place[1] : place[1] + side].mean())
    return slice(top, top + side), slice(left, left + side)


def write_page(
    path: Path,
    title: str,
    summary: dict[str, str],
    tables: Sequence[ResultTable],
    remarks: Sequence[str] = (),
    figure: Path | None = None,
    crops: Sequence[CropRow] = (),
    images: Sequence[ViewedImage] = (),
    image_bytes: int = MAX_BYTES,
) -> None:
    """Write a self-contained HTML page.

    Args:
        path: the file to write.
        title: the heading.
        summary: names and values that describe the run.
        tables: tables of results.
        remarks: sentences below the tables.
        figure: a PNG file.
        crops: crops of restored images.
        images: images in all their versions, shown in a viewer.
        image_bytes: limit for the images of the viewer, in bytes of the page.
    """
    write_html(
        path,
        "report.html.j2",
        title=title,
        summary=summary,
        tables=tables,
        remarks=remarks,
        figure=data_uri(figure.read_bytes(), "image/png") if figure else None,
        crops=[(row.name, [(caption, data_uri(_png(image), "image/png")) for caption, image in row.images.items()]) for row in crops],
        viewer=viewer(images, image_bytes) if images else None,
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
