"""What a measurement prints and writes: tables, lines and records, with the machine, as terminal output, Markdown and JSON."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from irformer.core.files import write_atomically
from irformer.reporting.tables import ResultTable
from irformer.speed.machine import Machine

FORMAT = 1


@dataclass(frozen=True)
class Section:
    """The results of one subcommand.

    Args:
        name: the subcommand.
        title: what was measured.
        tables: its tables.
        lines: verdicts and explanations.
        records: the numbers, as dataclasses.
        figure: file name of a figure beside the page, or None.
    """

    name: str
    title: str
    tables: Sequence[ResultTable]
    lines: Sequence[str]
    records: Sequence[Any]
    figure: str | None = None

    def show(self, console: Console) -> None:
        """Print tables and lines."""
        for table in self.tables:
            table.show(console)
        for line in self.lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class SpeedReport:
    """All results of a command.

    Args:
        machine: where they were measured.
        sections: the results.
        notes: what applies to all of them.
    """

    machine: Machine
    sections: Sequence[Section]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Return the results as Markdown, with the command at the top."""
        parts = [f"    {self.machine.command}", self.machine.line, *self.notes]
        for section in self.sections:
            parts.append(f"## {section.title}")
            for table in section.tables:
                parts += [f"**{table.title}**", table.markdown().rstrip()]
            if section.lines:
                parts.append("\n".join(f"- {line}" for line in section.lines))
            if section.figure:
                parts.append(f"![{section.title}]({section.figure})")
        return "\n\n".join(parts) + "\n"

    def record(self) -> dict[str, Any]:
        """Return the results as plain values for JSON."""
        sections = {
            section.name: {"title": section.title, "lines": list(section.lines), "results": [plain(record) for record in section.records]}
            for section in self.sections
        }
        return {"format": FORMAT, "machine": plain(self.machine), "notes": list(self.notes), "sections": sections}

    def write_json(self, file: Path) -> None:
        """Write the results as JSON."""
        text = json.dumps(self.record(), indent=1, allow_nan=False) + "\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def write_markdown(self, file: Path) -> None:
        """Write the results as Markdown."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary: temporary.write_text(self.markdown(), encoding="utf-8"))


def plain(value: Any) -> Any:
    """Return a record as plain values. Summaries of raw numbers are added: `spread` of a timing, `reached` of a ratio with a target."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return values | {name: plain(getattr(value, name)) for name in ("spread", "reached") if hasattr(type(value), name)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
