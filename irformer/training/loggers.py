"""Build the loggers of a run: metrics.csv always, TensorBoard and Weights & Biases if configured."""

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
    """Build the loggers that a configuration selects.

    Args:
        logger: the `logger` part of the configuration.
        folder: the run's folder.
        name: the run's name.

    Raises:
        UserError: a package is not installed.
    """
    loggers: list[Logger] = [MetricsCsv(folder / "metrics.csv")]
    if logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    wandb: Any = logger.get("wandb")  # absent in the config.yaml of older runs
    if wandb is not None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("logger=wandb: the package wandb is not installed: pip install irformer[wandb]")
        folder.mkdir(parents=True, exist_ok=True)
        # The run's name is also its id, so that a resumed run continues its own curves.
        loggers.append(instantiate(wandb, name=name, id=name.replace("/", "-"), resume="allow", save_dir=str(folder)))
    return loggers


def close_loggers(loggers: list[Logger]) -> None:
    """Finish the Weights & Biases run, which Lightning leaves open: otherwise the next run of a sweep would log to it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


@contextmanager
def writer_errors_reported_once() -> Iterator[None]:
    """Prevent TensorBoard's writer thread from printing the traceback of an error that is raised again in the main thread.

    The thread dies on an error such as a full disk, and the next logging call raises the same error where the run can handle it.
    """
    previous = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (type(failure.thread).__name__ == "_AsyncWriterThread" and isinstance(failure.exc_value, OSError)):
            previous(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous
