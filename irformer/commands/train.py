"""Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""

import os
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from irformer.commands.common import command, reporting_user_errors
from irformer.reporting.page import readable_console
from irformer.runs.resume import AUTO, auto_resumed, resumed_config
from irformer.runs.sweep import refuse_many_launchers, sweep_job
from irformer.training.build import build_run
from irformer.training.resuming import is_complete


def train() -> None:
    """Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""
    with reporting_user_errors():
        refuse_many_launchers(sys.argv[1:])
    command(_train, "train")


def _train(cfg: DictConfig) -> float | None:
    """Execute one run; in a sweep, return its score for hyperparameter optimization."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN or cfg.sweep is not None:
        return sweep_job(cfg, folder, readable_console())
    overrides = list(HydraConfig.get().overrides.task)
    if cfg.resume == AUTO:
        cfg, folder = auto_resumed(cfg, folder, overrides)
        if cfg.resume is not None and is_complete(folder, cfg.trainer.max_steps):
            print(f"{os.path.relpath(folder)} is complete: {cfg.trainer.max_steps:,} steps and its results; nothing to do")
            return None
    elif cfg.resume is not None:
        cfg = resumed_config(cfg, folder, overrides)
    build_run(cfg, folder).execute(readable_console())
    return None
