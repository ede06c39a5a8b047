"""metrics.csv: every logged number of a run, in a form that only grows."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from irformer.files import drop_rows_after

COLUMNS = ("step", "name", "value")


class MetricsCsv(Logger):
    """Appends one row (step, name, value) for each number to metrics.csv.

    Lightning's own CSVLogger keeps one column for each name, rewrites the file when a name comes up, and deletes it when a run is
    resumed; a file that only grows survives a crash at any moment.

    Args:
        path: of the file.
        start_step: rows beyond this step, written by a run that was interrupted, are dropped.
    """

    def __init__(self, path: Path, start_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self._start(start_step)

    @property
    def name(self) -> str:
        """Lightning asks for a name."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for a version; a run has one folder and no versions."""
        return ""

    @rank_zero_only
    def _start(self, start_step: int) -> None:
        drop_rows_after(self.path, start_step, COLUMNS)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append the numbers; the feature statistics are left to dynamics.csv, which has them by layer."""
        rows = [(step, name, f"{value:.8g}") for name, value in metrics.items() if name != "epoch" and not name.startswith("dynamics/")]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in config.yaml."""
