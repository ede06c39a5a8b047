"""Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from irformer.commands.common import command
from irformer.errors import UserError
from irformer.report import readable_console, sweep_table
from irformer.training.build import build_run

# Words whose meaning a resumed run has fixed, and words that may differ on the machine where it goes on.
_FIXED = ("task", "protocol", "model", "norm", "optim", "experiment", "debug")
_REPLACEABLE = ("data", "trainer", "callbacks", "logger")


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
    if cfg.resume is not None:
        cfg = _resumed_config(cfg, folder, list(HydraConfig.get().overrides.task))
    build_run(cfg, folder).execute(readable_console())


def _resumed_config(cfg: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """The interrupted run's own configuration, with what the command line says about where and how long it goes on."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"resume={cfg.resume}: no {file}; give the folder of a run")
    saved = OmegaConf.load(file)
    assert isinstance(saved, DictConfig)
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key in _FIXED:
            raise UserError(
                f"{override} together with resume: a resumed run keeps its {key}; init_from={cfg.resume} starts a new run from it"
            )
        if key in _REPLACEABLE:
            saved[key] = cfg[key]
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key not in _REPLACEABLE:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
    return saved
