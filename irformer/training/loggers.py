"""The loggers of a run: metrics.csv always, TensorBoard and Weights & Biases as configured."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from irformer.config.compose import instantiate
from irformer.errors import UserError
from irformer.training.metrics_csv import MetricsCsv


def build_loggers(logger: DictConfig, folder: Path, name: str) -> list[Logger]:
    """The loggers that a configuration asks for.

    Args:
        logger: the `logger` part of the configuration.
        folder: of the run.
        name: of the run.

    Raises:
        UserError: a package is missing.
    """
    loggers: list[Logger] = [MetricsCsv(folder / "metrics.csv")]
    if logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    wandb: Any = logger.get("wandb")  # absent in the config.yaml of older runs
    if wandb is not None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("logger=wandb: the package wandb is not installed: pip install irformer[wandb]")
        folder.mkdir(parents=True, exist_ok=True)
        # The run's name is its id there too, so that a resumed run goes on with its own curves.
        loggers.append(instantiate(wandb, name=name, id=name.replace("/", "-"), resume="allow", save_dir=str(folder)))
    return loggers


def close_loggers(loggers: list[Logger]) -> None:
    """End what Lightning leaves open: the next run of a sweep would otherwise go on with this one's Weights & Biases run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


@contextmanager
def writer_errors_reported_once() -> Iterator[None]:
    """Keep TensorBoard's writer thread from printing the traceback of an error that it hands on.

    The thread ends at an error such as a full disk, and the next number that is logged raises the same error where the run can answer it.
    """
    former = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (type(failure.thread).__name__ == "_AsyncWriterThread" and isinstance(failure.exc_value, OSError)):
            former(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = former
