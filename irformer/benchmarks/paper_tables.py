"""The tables of a benchmark as papers print them: one for each task, with published rows, ranks, and differences to a reference."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from irformer.benchmarks.workload import Evaluation, Workload
from irformer.errors import UserError
from irformer.evaluation.departures import in_words
from irformer.evaluation.evaluate import published_rows
from irformer.evaluation.results import Record
from irformer.reporting.page import benchmark_table, published_label
from irformer.reporting.tables import ResultTable, csv_text, latex, markdown, relative_to

# Rules of a protocol that depend on the network and do not separate tables.
_OF_NETWORK = ("padding", "precision", "precision_scheme", "calibration")


@dataclass(frozen=True)
class TaskTable:
    """The results on one task.

    Args:
        task: label of the task.
        table: all rows.
        checkpoints: the checkpoints of the rows that were measured; published ones follow.
        reference: name of the row in `differences`' title, or None.
        differences: the other rows minus the reference; None without a reference.
    """

    task: str
    table: ResultTable
    checkpoints: list[str]
    reference: str | None = None
    differences: ResultTable | None = None

    @property
    def tables(self) -> list[ResultTable]:
        """The table, and that of differences."""
        return [self.table] if self.differences is None else [self.table, self.differences]


def task_tables(workload: Workload, records: Sequence[Record], reference: str | None = None) -> list[TaskTable]:
    """Return a table for each task.

    Args:
        workload: what was measured.
        records: the record of each evaluation.
        reference: a checkpoint, or the name of a published network.
    """
    groups: dict[str, list[tuple[Evaluation, Record]]] = defaultdict(list)
    for evaluation, record in zip(workload.evaluations, records, strict=True):
        rules = {key: value for key, value in record.protocol.items() if key not in _OF_NETWORK}
        groups[json.dumps([record.task_label, rules])].append((evaluation, record))
    return [_task_table(group, reference) for group in groups.values()]


def require_reference(workload: Workload, reference: str | None) -> None:
    """Check before measuring that a reference row will exist.

    Raises:
        UserError: no row has this name.
    """
    if reference is None:
        return
    known: dict[str, None] = {}
    for evaluation in workload.evaluations:
        subject = evaluation.subject
        published = published_rows(evaluation.task, [test_set.name for test_set in evaluation.test_sets])
        if reference in (
            subject.given,
            subject.short,
            subject.label,
            *(name for row in published for name in (row.model, published_label(row))),
        ):
            return
        known |= dict.fromkeys([subject.given, *(row.model for row in published)])
    raise UserError(f"reference={reference}: no row has this name; known: {', '.join(known)}")


def _task_table(group: Sequence[tuple[Evaluation, Record]], reference: str | None) -> TaskTable:
    task = group[0][0].task
    results = {record.label: list(record.test_sets.values()) for _, record in group}
    departures = list(dict.fromkeys(phrase for _, record in group for phrase in _departures(record)))
    table = benchmark_table(task, results, ranked=True, departures=departures, notes=_notes(group))
    checkpoints = [record.checkpoint for _, record in group]
    row = None if reference is None else _reference_row(group, table, reference)
    if row is None:
        return TaskTable(task.label, table, checkpoints)
    name = str(table.rows[row][0])
    differences = relative_to(table, row, f"{table.title}, difference to {name}")
    marks = [note for note in table.notes if note.startswith("*")]  # explain the marks of published rows
    return TaskTable(task.label, table, checkpoints, name, replace(differences, notes=marks))


def _reference_row(group: Sequence[tuple[Evaluation, Record]], table: ResultTable, reference: str) -> int | None:
    for i, (evaluation, record) in enumerate(group):
        if reference in (evaluation.subject.given, evaluation.subject.short, record.label):
            return i
    sets = [column.name for column in table.columns[1:]]
    for i, row in enumerate(published_rows(group[0][0].task, sets), len(group)):
        if reference in (row.model, published_label(row)):
            return i
    return None


def _departures(record: Record) -> list[str]:
    precision = record.protocol.get("precision")
    return [*([f"precision {precision}"] if precision else []), *in_words(record.departures)]


def _notes(group: Sequence[tuple[Evaluation, Record]]) -> list[str]:
    """Return sentences about what differs between the rows, and what went wrong."""
    networks = [(evaluation, record) for evaluation, record in group if evaluation.subject.network is not None]
    notes = ["Best in bold, second best underlined."] if len(group) > 1 else []
    schemes = dict.fromkeys(
        (record.protocol["precision"], record.protocol["precision_scheme"]) for _, record in networks if "precision" in record.protocol
    )
    notes += [f"{precision}: {scheme}." for precision, scheme in schemes]
    notes += dict.fromkeys(
        f"Calibration images: {'; '.join(record.protocol['calibration'])}." for _, record in networks if "calibration" in record.protocol
    )
    if networks and len(networks) < len(group) and _departures(networks[0][1]):
        without = ", ".join(record.label for evaluation, record in group if evaluation.subject.network is None)
        notes.append(f"{'; '.join(_departures(networks[0][1]))}: does not apply to {without}.")
    if len({record.protocol["padding"] for _, record in networks}) > 1:
        notes.append("The padding differs: " + ", ".join(f"{record.label} {record.protocol['padding']}" for _, record in networks) + ".")
    for _, record in group:
        for result in record.test_sets.values():
            if result.non_finite:
                images = ", ".join(f"{name} ({count:,} values)" for name, count in result.non_finite.items())
                notes.append(f"{record.label}, {result.name}: NaN or infinite values in {images}; such a set has no mean.")
            if "tile" not in record.departures:
                tiled = ", ".join(f"{name} in tiles of {cost.tile}" for name, cost in result.costs.items() if cost.tile is not None)
                if tiled:
                    notes.append(f"{record.label}, {result.name}: memory did not suffice for whole images; restored {tiled} pixels.")
    return notes


def markdown_text(tables: Sequence[TaskTable]) -> str:
    """Return all tables in Markdown."""
    return "\n".join(f"## {table.title}\n\n{markdown(table)}" for part in tables for table in part.tables)


def latex_text(tables: Sequence[TaskTable]) -> str:
    """Return all tables in LaTeX; they need the package booktabs."""
    return "\n".join(latex(table) for part in tables for table in part.tables)


def table_csv(tables: Sequence[TaskTable]) -> str:
    """Return the rows of all tables as CSV at full precision, with columns for the differences to the reference."""
    rows: list[dict[str, str]] = []
    for part in tables:
        published = len(part.table.rows) - len(part.checkpoints)
        sources = [("measured", checkpoint) for checkpoint in part.checkpoints] + [("published", "")] * published
        own = [
            {"task": part.task, "name": values.pop(""), "source": source, "checkpoint": checkpoint, **values}
            for values, (source, checkpoint) in zip(_csv_rows(part.table), sources, strict=True)
        ]
        if part.differences is not None:
            others = {values.pop(""): values for values in _csv_rows(part.differences)}
            for row in own:
                row |= {f"{name} - {part.reference}": value for name, value in others.get(row["name"], {}).items()}
        rows += own
    return _as_csv(rows)


def per_image_csv(records: Sequence[Record]) -> str:
    """Return a row for each image of each record as CSV: metrics, seconds, peak memory and size."""
    rows: list[dict[str, Any]] = []
    for record in records:
        for result in record.test_sets.values():
            for image in [*result.per_image, *result.non_finite] if not result.costs else result.costs:
                cost = result.costs.get(image)
                row: dict[str, Any] = {"task": record.task_label, "name": record.label, "checkpoint": record.checkpoint}
                row |= {"test_set": result.name, "image": image, **result.per_image.get(image, {})}
                row["non_finite"] = result.non_finite.get(image, 0)
                if cost is not None:
                    row |= {"width": cost.width, "height": cost.height, "seconds": round(cost.seconds, 6)}
                    row |= {"peak_memory_bytes": cost.peak_memory, "tile": cost.tile}
                rows.append(row)
    last = ["non_finite", "width", "height", "seconds", "peak_memory_bytes", "tile"]
    return _as_csv(rows, last)


def _csv_rows(table: ResultTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(table))))


def _as_csv(rows: Sequence[Mapping[str, Any]], last: Sequence[str] = ()) -> str:
    """Return rows as CSV; columns are in the order of their first appearance, except the last ones."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in last]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *last], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
