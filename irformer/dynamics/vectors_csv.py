"""vectors.csv: vectors and tables of a run's layers during training, one row each, in an append-only file.

It is text of three digits per number, so that it is small enough to be committed with an experiment and is truncated like the other logs
when a run is resumed. Columns:

- step: completed optimizer steps.
- layer, name: as in dynamics.csv.
- quantity: `channel_energy` of a group's output on the fixed batch [C]; `weight` or `bias` of the final norm [C]; `position_biases` of an
  attention layer [heads, rows, columns].
- shape: for example 48 or 4x15x15.
- values: separated by spaces, the last axis fastest.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class VectorRow(NamedTuple):
    """One row of vectors.csv; the module's docstring describes the fields."""

    step: int
    layer: int
    name: str
    quantity: str
    values: NDArray[np.float64]


COLUMNS = ("step", "layer", "name", "quantity", "shape", "values")


def append_vectors(path: Path, rows: Iterable[VectorRow]) -> None:
    """Append rows to a file, with the header if it is new."""
    with path.open("a", newline="") as file:
        header = [] if file.tell() else [COLUMNS]
        csv.writer(file).writerows([*header, *((*row[:4], _shape(row.values), _text(row.values)) for row in rows)])


def read_vectors(path: Path) -> list[VectorRow]:
    """Read all rows of a file."""
    csv.field_size_limit(2**31 - 1)  # a table of a large network is longer than the default limit
    with path.open(newline="") as file:
        return [
            VectorRow(
                int(row["step"]),
                int(row["layer"]),
                row["name"],
                row["quantity"],
                np.array(row["values"].split(), float).reshape([int(size) for size in row["shape"].split("x")]),
            )
            for row in csv.DictReader(file)
        ]


def _shape(values: NDArray[np.float64]) -> str:
    return "x".join(map(str, values.shape))


def _text(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.3g}" for value in values.flat)
