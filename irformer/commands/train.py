"""Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from irformer.commands.common import command
from irformer.commands.resume import AUTO, auto_resumed, resumed_config
from irformer.report import readable_console, sweep_table
from irformer.training.build import build_run
from irformer.training.resuming import is_complete


def train() -> None:
    """Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""
    command(_train, "train")


class SweepTable(Callback):
    """After a multirun: one table of all its runs, on the terminal and as table.md in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the runs' results.json."""
        folder = Path(config.hydra.sweep.dir)
        table = sweep_table(folder)
        if table is not None:
            table.show(readable_console())
            (folder / "table.md").write_text(table.markdown(), encoding="utf-8")


def _train(cfg: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = list(HydraConfig.get().overrides.task)
    if cfg.resume == AUTO:
        cfg, folder = auto_resumed(cfg, folder, overrides)
        if cfg.resume is not None and is_complete(folder, cfg.trainer.max_steps):
            print(f"{os.path.relpath(folder)} is complete: {cfg.trainer.max_steps:,} steps and the results; nothing is left to do")
            return
    elif cfg.resume is not None:
        cfg = resumed_config(cfg, folder, overrides)
    build_run(cfg, folder).execute(readable_console())
