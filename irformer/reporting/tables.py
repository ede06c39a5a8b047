"""Tables of numbers, with renderers for the terminal, Markdown, CSV and LaTeX.

Cells contain numbers at full precision with the decimals to print, so each renderer can choose the precision.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Number:
    """A number in a cell.

    Args:
        value: the number at full precision.
        digits: decimals to print.
        sign: whether to print the sign of positive numbers.
        deviation: standard deviation, printed after ± with one more decimal.
    """

    value: float
    digits: int = 0
    sign: bool = False
    deviation: float | None = None

    @property
    def rounded(self) -> str:
        """The printed number without its deviation."""
        return f"{self.value:{'+' if self.sign else ''}.{self.digits}f}"

    @property
    def text(self) -> str:
        """The printed number with its deviation."""
        return self.rounded if self.deviation is None else f"{self.rounded} ± {self.deviation:.{self.digits + 1}f}"


@dataclass(frozen=True)
class Numbers:
    """Several numbers in one cell, such as PSNR and SSIM.

    Args:
        values: one number for each part of the column; None is a missing value.
        between: separator between two numbers.
        brackets: text before the first and after the last number.
    """

    values: tuple[Number | None, ...]
    between: str = " / "
    brackets: tuple[str, str] = ("", "")


Cell = str | Number | Numbers | None
"""The content of a table cell; None is a missing value."""


@dataclass(frozen=True)
class Part:
    """Describes one number in the cells of a column.

    Args:
        name: the name, such as `psnr_y`.
        higher_is_better: the direction; None if the numbers are not ranked.
    """

    name: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: the name in the header.
        parts: descriptions of the numbers in each cell, in order.
    """

    name: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ResultTable:
    """A table with a title and notes.

    Args:
        title: the title above the table.
        header: the columns; a string is a column without parts.
        rows: one cell for each column.
        notes: sentences below the table.
        ranked: whether every renderer marks the best and the second best numbers (see `ranks`).
        unranked: indices of rows that are not compared with the others.
    """

    title: str
    header: Sequence[str | Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=list)
    ranked: bool = False
    unranked: frozenset[int] = frozenset()

    @property
    def columns(self) -> list[Column]:
        """The header as columns."""
        return [column if isinstance(column, Column) else Column(column) for column in self.header]

    @property
    def names(self) -> list[str]:
        """The header as text."""
        return [column.name for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as text; numbers are rounded, and missing values are `-`."""
        return [[_text(cell, [number.text for number in _present(cell)]) for cell in row] for row in self.rows]

    def show(self, console: Console) -> None:
        """Print the table to a terminal (see `terminal`)."""
        terminal(self, console)

    def markdown(self) -> str:
        """Return the table in Markdown (see `markdown`)."""
        return markdown(self)


def terminal(table: ResultTable, console: Console) -> None:
    """Print a table to a terminal."""
    # Text is not parsed, while names chosen by users may look like rich's markup.
    caption = Text("\n".join(table.notes), "table.caption") if table.notes else None
    printed = Table(title=Text(table.title, "table.title"), title_justify="left", caption=caption, caption_justify="left")
    for i, name in enumerate(table.names):
        printed.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    marks = ranks(table) if table.ranked else {}
    for r, row in enumerate(table.rows):
        printed.add_row(*(_styled(cell, [marks.get((r, c, p)) for p in range(len(_values(cell)))]) for c, cell in enumerate(row)))
    console.print(printed)


def _styled(cell: Cell, marks: Sequence[int | None]) -> Text:
    styles = {None: "", 1: "bold", 2: "underline"}
    numbers = [Text(number.text, styles[mark]) for number, mark in zip(_values(cell), marks, strict=True) if number is not None]
    if not numbers or not isinstance(cell, Numbers):
        return numbers[0] if numbers else Text(_text(cell, []))
    return Text.assemble(cell.brackets[0], Text(cell.between).join(numbers), cell.brackets[1])


def markdown(table: ResultTable) -> str:
    """Return a table in Markdown with its notes, without its title; in a ranked table, the best is bold and the second best underlined."""
    marks = ranks(table) if table.ranked else {}
    around = {None: ("", ""), 1: ("**", "**"), 2: ("<u>", "</u>")}
    rows = [
        [
            _text(
                cell,
                [number.text.join(around[marks.get((r, c, p))]) for p, number in enumerate(_values(cell)) if number is not None],
            )
            for c, cell in enumerate(row)
        ]
        for r, row in enumerate(table.rows)
    ]
    lines = [f"| {' | '.join(row)} |" for row in [table.names, ["---"] * len(table.header), *rows]]
    return "\n".join([*lines, "", *table.notes, ""])


def csv_text(table: ResultTable) -> str:
    """Return a table as CSV without title and notes: one column for each number, at full precision.

    Missing values are empty. If numbers have deviations, a column `NAME deviation` follows.
    """
    columns = [_csv_column(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*chain(*fields)] for fields in zip(*columns, strict=True))
    return text.getvalue()


def _csv_column(column: Column, cells: Sequence[Cell]) -> list[list[str]]:
    """Return the fields of a column: those of the header, then those of each row."""
    numbers = [_values(cell) for cell in cells]
    width = max([1, len(column.parts), *(len(values) for values in numbers)])
    names = [part.name for part in column.parts]
    if not names:
        names = [""] if width == 1 else [str(i) for i in range(1, width + 1)]
    rows = [[f"{column.name} {name}".strip() for name in names]]
    for cell, values in zip(cells, numbers, strict=True):
        padded = [*values, *[None] * (width - len(values))]
        rows.append([cell, *[""] * (width - 1)] if isinstance(cell, str) else ["" if n is None else _exact(n.value) for n in padded])
    for i in reversed(range(width)):
        deviations = [values[i].deviation if i < len(values) and values[i] else None for values in numbers]  # type: ignore[union-attr]
        if any(deviation is not None for deviation in deviations):
            rows[0].insert(i + 1, f"{rows[0][i]} deviation")
            for row, deviation in zip(rows[1:], deviations, strict=True):
                row.insert(i + 1, "" if deviation is None else _exact(deviation))
    return rows


def _exact(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def latex(table: ResultTable) -> str:
    r"""Return a table as a LaTeX tabular that uses the booktabs package; `\input` it into a table environment.

    The best number of each part with a direction is bold, including ties after rounding; in a ranked table, the second best is underlined.
    Title and notes are comments.
    """
    marks = ranks(table)
    around = {1: r"\textbf{%s}"} | ({2: r"\underline{%s}"} if table.ranked else {})

    def cell(row: int, column: int) -> str:
        content = table.rows[row][column]
        if content is None or isinstance(content, str):
            return "--" if content in (None, "-") else _escaped(content)
        numbers = []
        for part, number in enumerate(_values(content)):
            if number is not None:
                numbers.append(around.get(marks.get((row, column, part), 0), "%s") % _latex_number(number))
        return _text(content, numbers) if numbers else "--"

    def line(cells: Sequence[str]) -> str:
        # LaTeX would parse a bracket after \\ as an optional argument.
        return ("{}" if cells[0].startswith("[") else "") + " & ".join(cells) + r" \\"

    lines = [
        f"% {' '.join(table.title.split())}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        line([_escaped(name) for name in table.names]),
        r"\midrule",
        *(line([cell(row, column) for column in range(len(table.header))]) for row in range(len(table.rows))),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {' '.join(note.split())}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def ranks(table: ResultTable) -> dict[tuple[int, int, int], int]:
    """Return the rank of the best (1) and the second best (2) numbers of a table, by row, column and part.

    Numbers that are equal after rounding share a rank. Only parts that have a direction and at least two numbers are ranked, and a second
    best needs at least three. NaN is never ranked, and neither are the rows in `ResultTable.unranked`.
    """
    found: dict[tuple[int, int, int], int] = {}
    for i, column in enumerate(table.columns):
        for p, part in enumerate(column.parts):
            if part.higher_is_better is None:
                continue
            numbers = {
                r: number
                for r, row in enumerate(table.rows)
                if r not in table.unranked and p < len(values := _values(row[i])) and (number := values[p]) is not None
            }
            ordered = sorted((n for n in numbers.values() if not math.isnan(n.value)), key=lambda n: n.value, reverse=part.higher_is_better)
            if len(ordered) < 2:
                continue
            texts = list(dict.fromkeys(number.rounded for number in ordered))[: 2 if len(ordered) > 2 else 1]
            found |= {(r, i, p): texts.index(number.rounded) + 1 for r, number in numbers.items() if number.rounded in texts}
    return found


def best_numbers(table: ResultTable) -> set[tuple[int, int, int]]:
    """Return row, column and part of the best numbers of a table (see `ranks`)."""
    return {place for place, rank in ranks(table).items() if rank == 1}


def relative_to(table: ResultTable, row: int, title: str) -> ResultTable:
    """Return a table of signed differences of all other rows to one row; a number is missing where either table lacks it."""
    reference = table.rows[row]

    def difference(cell: Cell, other: Cell) -> Cell:
        if isinstance(cell, str) or cell is None:
            return cell
        values = zip(_values(cell), _values(other), strict=False)
        return Numbers(tuple(None if a is None or b is None else Number(a.value - b.value, a.digits, sign=True) for a, b in values))

    rows = [[difference(*pair) for pair in zip(cells, reference, strict=True)] for r, cells in enumerate(table.rows) if r != row]
    unranked = frozenset(r - (r > row) for r in table.unranked)
    return ResultTable(title, table.header, rows, [], table.ranked, unranked)


def _values(cell: Cell) -> tuple[Number | None, ...]:
    """Return the numbers of a cell by part."""
    if isinstance(cell, Numbers):
        return cell.values
    return (cell,) if isinstance(cell, Number) else ()


def _present(cell: Cell) -> list[Number]:
    return [number for number in _values(cell) if number is not None]


def _text(cell: Cell, numbers: Sequence[str]) -> str:
    """Return the text of a cell, given the texts of its numbers."""
    if isinstance(cell, str):
        return cell
    if not numbers:
        return "-"
    if isinstance(cell, Numbers):
        return cell.between.join(numbers).join(cell.brackets)
    return numbers[0]


def _latex_number(number: Number) -> str:
    text = number.text.replace("inf", r"$\infty$").replace("±", r"$\pm$")
    return f"$-${text[1:]}" if text.startswith("-") else text


_ESCAPES = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\n": " ",
}


def _escaped(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return "".join(_ESCAPES.get(character, character) for character in text)
