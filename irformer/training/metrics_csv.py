"""metrics.csv: every logged number of a run, in a form that only grows."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

COLUMNS = ("step", "name", "value")


class MetricsCsv(Logger):
    """Appends one row (step, name, value) for each number to metrics.csv.

    Lightning's own CSVLogger keeps one column for each name, rewrites the file when a name comes up, and deletes it when a run is
    resumed; a file that only grows survives a crash at any moment.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._last: dict[str, tuple[int | None, str]] = {}

    @property
    def name(self) -> str:
        """Lightning asks for a name."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for a version; a run has one folder and no versions."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append the numbers; the feature statistics are left to dynamics.csv, which has them by layer.

        Lightning logs the learning rate of a step with each of its accumulated batches; it is written once.
        """
        named = {name: (step, f"{value:.8g}") for name, value in metrics.items() if name != "epoch" and not name.startswith("dynamics/")}
        rows = [(step, name, value) for name, (step, value) in named.items() if self._last.get(name) != (step, value)]
        self._last.update(named)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows if file.tell() else [COLUMNS, *rows])

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in config.yaml."""
