"""Tables for HTML pages: every number has a column of its own, and the page's script sorts and filters the rows."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from irformer.reporting.html import Fragment, asset, render
from irformer.reporting.tables import Cell, Column, Number, Numbers, ResultTable, ranks

_TALL = 16  # rows from which a table scrolls within the page
_LONG = 28  # characters of a text for which a column keeps a width to wrap in
_NUMERIC = re.compile(r"[\d\s.,;:/%\u00d7±()+\-\u2212\u2013e∞]*")


@dataclass(frozen=True)
class _Head:
    """A cell of the header; `sort` is the column that it sorts by, or None for the name of several columns."""

    text: str
    full: str
    sort: int | None
    first: str = "ascending"
    columns: int = 1
    rows: int = 1
    text_column: bool = False
    long: bool = False


@dataclass(frozen=True)
class _Cell:
    """A cell of a row.

    Args:
        text: what is shown.
        value: the number to sort by, empty for a missing one, or None to sort by the text.
        rank: 1 for the best number, 2 for the second best, 0 for others.
        link: an address, or None.
        text_column: whether the column has only texts.
    """

    text: str
    value: str | None = None
    rank: int = 0
    link: str | None = None
    text_column: bool = False


def html_table(table: ResultTable, links: Mapping[str, str] | None = None) -> Fragment:
    """Return a table as part of a page: sorted by the buttons in its header, and filtered by words if it has many rows.

    A column of several named numbers, such as PSNR and SSIM of a set, becomes a group of columns. The best numbers are bold, and in
    a ranked table the second best are underlined. Without scripts, the table is static.

    Args:
        table: the table; its title is not part of the fragment.
        links: addresses by the text of a cell in the first column.
    """
    marks = ranks(table) if table.ranked else {place: rank for place, rank in ranks(table).items() if rank == 1}
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    groups = [_parts(column, cells) for column, cells in zip(table.columns, columns, strict=True)]
    aligned = [all(map(_is_text, cells)) and not all(map(_is_missing, cells)) for cells in columns]
    long = [any(isinstance(cell, str) and len(cell) > _LONG for cell in cells) for cells in columns]
    body = [
        [
            cell
            for i, content in enumerate(row)
            for cell in _cells(
                content, groups[i], {part: rank for (r, c, part), rank in marks.items() if (r, c) == (number, i)}, aligned[i]
            )
        ]
        for number, row in enumerate(table.rows)
    ]
    if links:
        body = [[_linked(row[0], links), *row[1:]] for row in body]
    html = render(
        "table/table.html.j2",
        title=table.title,
        head=_head(table.columns, groups, aligned, long),
        body=body,
        notes=table.notes,
        wide=len(table.rows) >= _TALL,
    )
    return Fragment(html, asset("table/table.css"), asset("table/table.js"))


def _parts(column: Column, cells: list[Cell]) -> int:
    """Return how many columns of the page a column becomes: one for each of its numbers, if all of them have names."""
    named = len(column.parts) > 1 and all(part.name for part in column.parts)
    fits = all(not isinstance(cell, Number) and len(getattr(cell, "values", ())) <= len(column.parts) for cell in cells)
    return len(column.parts) if named and fits else 1


def _is_text(cell: Cell) -> bool:
    """Return whether a cell would not look like a number in a column."""
    return _is_missing(cell) or (isinstance(cell, str) and not _NUMERIC.fullmatch(cell))


def _is_missing(cell: Cell) -> bool:
    return cell is None or cell in ("-", "")


def _head(columns: list[Column], groups: list[int], aligned: list[bool], long: list[bool]) -> list[list[_Head]]:
    rows = 2 if any(size > 1 for size in groups) else 1
    first: list[_Head] = []
    second: list[_Head] = []
    place = 0
    for column, size, text_column, wraps in zip(columns, groups, aligned, long, strict=True):
        if size == 1:
            part = column.parts[0] if column.parts else None
            name = column.name or "name"
            first.append(_Head(name, name, place, _order(part, text_column), 1, rows, text_column, wraps))
        else:
            first.append(_Head(column.name, column.name, None, columns=size))
            second += [
                _Head(part.name, f"{column.name} {part.name}".strip(), place + i, _order(part, False))
                for i, part in enumerate(column.parts)
            ]
        place += size
    return [first, second] if rows == 2 else [first]


def _order(part: object, text_column: bool) -> str:
    """Return the direction in which a column is sorted first: the best number or the first word at the top."""
    higher = getattr(part, "higher_is_better", None)
    return "ascending" if text_column or higher is False else "descending"


def _cells(content: Cell, size: int, marks: Mapping[int, int], text_column: bool) -> list[_Cell]:
    if size == 1:
        present = [number for number in _numbers(content) if number is not None]
        text = ResultTable("", [""], [[content]]).texts[0][0]
        value = None if isinstance(content, str) else _value(present[0] if present else None)
        return [_Cell(text, value, min(marks.values(), default=0), text_column=text_column)]
    if isinstance(content, str):
        return [_Cell(content), *[_Cell("", "")] * (size - 1)]
    numbers = [*_numbers(content), *[None] * size][:size]
    return [_Cell("-" if n is None else n.text, _value(n), marks.get(i, 0)) for i, n in enumerate(numbers)]


def _numbers(content: Cell) -> list[Number | None]:
    if isinstance(content, Numbers):
        return list(content.values)
    return [content] if isinstance(content, Number) else []


def _value(number: Number | None) -> str:
    """Return a number at full precision for the page's script; NaN is missing."""
    if number is None or math.isnan(number.value):
        return ""
    return repr(float(number.value)).replace("inf", "Infinity")


def _linked(cell: _Cell, links: Mapping[str, str]) -> _Cell:
    return replace(cell, link=links.get(cell.text))
