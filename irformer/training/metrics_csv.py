"""metrics.csv: all logged values of a run, in an append-only file."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

COLUMNS = ("step", "name", "value")


class MetricsCsv(Logger):
    """Appends one row (step, name, value) per logged value to metrics.csv.

    Lightning's CSVLogger keeps one column per name, rewrites the file when a new name appears, and deletes it when a run is resumed. An
    append-only file survives a crash at any time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._last: dict[str, tuple[int | None, str]] = {}

    @property
    def name(self) -> str:
        """The name of the logger, which Lightning requires."""
        return "metrics"

    @property
    def version(self) -> str:
        """The version, which Lightning requires; empty, because a run has a single folder."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append the values, except feature statistics, which dynamics.csv contains by layer.

        Lightning logs the learning rate of a step once per accumulated batch; only the first is written.
        """
        named = {name: (step, f"{value:.8g}") for name, value in metrics.items() if name != "epoch" and not name.startswith("dynamics/")}
        rows = [(step, name, value) for name, (step, value) in named.items() if self._last.get(name) != (step, value)]
        self._last.update(named)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows if file.tell() else [COLUMNS, *rows])

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in config.yaml."""
