"""Files of a run that survive an interruption: written aside and renamed, or cut back to the step that training goes on from."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside path, then put it in path's place: a reader finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def drop_rows_after(path: Path, step: int, columns: Sequence[str]) -> None:
    """Start a CSV file whose first column is the step, or cut an existing one back to the rows up to a step, so that none is doubled."""
    rows: list[list[str]] = []
    if path.exists() and step > 0:
        with path.open(newline="") as file:
            rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(columns) and int(row[0]) <= step]

    def write(aside: Path) -> None:
        with aside.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])

    write_atomically(path, write)
