"""Build tables of metrics and HTML reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from rich.console import Console

from irformer.evaluation.evaluate import Metrics, PublishedRow, SetResult, published_rows
from irformer.metrics import METRICS, MetricTraits
from irformer.reporting.charts import Chart, charts
from irformer.reporting.forest import Forest, forests
from irformer.reporting.html import data_uri, write_html
from irformer.reporting.table_html import html_table
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


def image_table(task: Task, results: Mapping[str, Sequence[SetResult]], prefix: str = "") -> ResultTable:
    """Return a table with one row per test image and one group of columns per restorer, named as in `benchmark_table`.

    Args:
        task: the task.
        results: the results of each restorer.
        prefix: start of the names of all images, which are otherwise `SET/IMAGE`.
    """
    traits = {name: metric.traits for name, metric in task.metrics.items()}
    metrics = list(traits)
    measured: dict[str, dict[str, Metrics]] = {name: {} for name in results}
    for name, row in results.items():
        for result in row:
            of_set = (*result.per_image, *result.non_finite)
            measured[name] |= {f"{prefix}{result.name}/{image}": result.per_image.get(image, {}) for image in of_set}
    images = list(dict.fromkeys(image for found in measured.values() for image in found))
    rows: list[list[Cell]] = [
        [image, *(metric_numbers(found.get(image, {}), metrics, traits) for found in measured.values())] for image in images
    ]
    # Without directions: the best number of a column would be that of the easiest image.
    columns = [Column(name, tuple(Part(metric) for metric in metrics)) for name in results]
    return ResultTable(f"Every image, {task.label}" if prefix else "Every image", ["image", *columns], rows)


def write_page(
    path: Path,
    title: str,
    summary: Mapping[str, str],
    tables: Sequence[ResultTable],
    remarks: Sequence[str] = (),
    figure: Path | None = None,
    images: Sequence[ViewedImage] = (),
    plots: Sequence[Chart] = (),
    differences: Sequence[Forest] = (),
    details: Sequence[ResultTable] = (),
    image_bytes: int = MAX_BYTES,
) -> None:
    """Write a self-contained HTML page: summary, tables, images, charts and long tables, each only if there is something to show.

    Args:
        path: the file to write.
        title: the heading.
        summary: names and values that describe what was measured.
        tables: tables of results.
        remarks: sentences below the tables.
        figure: a PNG file.
        images: images in all their versions, shown in a viewer.
        plots: charts of values over steps.
        differences: plots of differences with their intervals, below the tables of results.
        details: long tables at the end, such as those of all images. A cell in the first column that is the name of an image in the
            viewer becomes a link to it.
        image_bytes: limit for the images of the viewer, in bytes of the page.
    """
    links = {image.name: f"#{urlencode({'image': image.name})}" for image in images}
    shown = [html_table(table) for table in tables]
    listed = [html_table(table, links) for table in details]
    viewed = viewer(images, image_bytes) if images else None
    drawn = charts(plots) if plots else None
    forest = forests(differences) if differences else None
    fragments = [fragment for fragment in (*shown, *listed, forest, viewed, drawn) if fragment is not None]
    write_html(
        path,
        "report.html.j2",
        title=title,
        summary=summary,
        tables=list(zip(tables, shown, strict=True)),
        details=list(zip(details, listed, strict=True)),
        remarks=remarks,
        figure=data_uri(figure.read_bytes(), "image/png") if figure else None,
        viewer=viewed,
        charts=drawn,
        forest=forest,
        styles=list(dict.fromkeys(fragment.style for fragment in fragments)),
        scripts=list(dict.fromkeys(fragment.script for fragment in fragments if fragment.script)),
    )
