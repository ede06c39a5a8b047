"""dynamics.csv: statistics of a run's layers during training, one row per value, in an append-only file.

Columns:

- step: completed optimizer steps.
- layer: place of the layer among those of its kind, from 0, in order of depth.
- name: name of the module.
- statistic: for example mean_square.
- value: a number; nan or inf if the features were not finite.
- kind: the word of `callbacks.probe.layers` that selected the layer, for example groups; or a kind of weights, see
  `irformer.dynamics.parameters.measure_weights`.
- source: what the value was computed from: `probe` (features of the fixed batch), `training` (features of the batch of this step, and the
  step's gradients and updates), or `weights`.

Files of earlier versions lack the last two columns: they contain groups on the fixed batch. A run of an earlier version that is resumed has
rows of both lengths.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from irformer.dynamics.selection import GROUPS

Source = Literal["probe", "training", "weights"]


class Row(NamedTuple):
    """One row of dynamics.csv; the module's docstring describes the fields."""

    step: int
    layer: int
    name: str
    statistic: str
    value: float
    kind: str = GROUPS
    source: Source = "probe"


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a file, with the header if it is new."""
    with path.open("a", newline="") as file:
        header = [] if file.tell() else [Row._fields]
        csv.writer(file).writerows([*header, *(row._replace(value=f"{row.value:.6g}") for row in rows)])  # type: ignore[arg-type]


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a file, also of earlier versions."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        return [_row(*row) for row in rows]


def _row(step: str, layer: str, name: str, statistic: str, value: str, kind: str = GROUPS, source: Any = "probe") -> Row:
    return Row(int(step), int(layer), name, statistic, float(value), kind, source)
