"""What `resume=` means: a run's own configuration, what the command line may change in it, and which run `resume=auto` goes on with."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from irformer.checkpoints import LAST
from irformer.config import trust_of
from irformer.errors import UserError
from irformer.files import locked
from irformer.processes import is_child, started_together
from irformer.saved_config import read_saved_config
from irformer.training.resuming import PREVIOUS, is_complete
from irformer.trust import shortened

_log = logging.getLogger(__name__)

AUTO = "auto"
CONFIG = Path("config.yaml")

# What may differ when a run goes on: where, how long, what it shows. All else is what it was started with, or it would be another run.
_FREE = (
    "data",
    "trainer",
    "callbacks",
    "logger",
    "checkpoint_every",
    "test_sets",
    "paths",
    "max_batch_per_device",
    "name",
    "resume",
    "trust",
)
_HOW_DATA_IS_READ = ("packed", "val", "allow_test_images", "workers", "cache_gb")
_GROUPS = ("data", "trainer", "callbacks", "logger")
# Tells the processes that Lightning starts by the same command line which folder the first one has found.
_FOLDER = "IRFORMER_RUN_FOLDER"


def resumed_config(cfg: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """The configuration of `resume=FOLDER`: the interrupted run's own, with what the command line says about where and how long it goes on.

    Args:
        cfg: as the command line composes it.
        folder: of the run.
        overrides: the words of the command line.

    Raises:
        UserError: there is no such run, or a word would make another run of it.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume={cfg.resume}: no {folder / CONFIG}; give the folder of a run")
    saved = read_saved_config(folder / CONFIG, trust_of(cfg), whole=True)
    saved.trust = cfg.trust  # what the user trusts, never what the file says
    keys = {override: override.lstrip("+~").split("=", 1)[0] for override in overrides}
    for override, key in keys.items():
        free = key.split(".")[0] in _FREE
        elsewhere = "/" in key or key.split(".")[0] not in cfg  # a group whose keys are not under its own name, as experiment
        if not free and (elsewhere or _plain(OmegaConf.select(cfg, key)) != _plain(OmegaConf.select(saved, key))):
            raise UserError(
                f"{override} together with resume: a resumed run keeps its {key}; init_from={cfg.resume} starts a new run from it"
            )
        if key in _GROUPS:
            saved[key] = cfg[key]
    for key in keys.values():
        if key.split(".")[0] in _FREE and key not in _GROUPS:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
    return saved


def auto_resumed(cfg: DictConfig, folder: Path, overrides: list[str]) -> tuple[DictConfig, Path]:
    """Configuration and folder of `resume=auto`: a run that goes on where there is one to go on with, and a new one elsewhere.

    The folder is that of the run's name or of hydra.run.dir where one is given, and in a sweep that of the job. Otherwise it is that of the
    unfinished run with the same settings that was written to last, if no other process is at it.

    Args:
        cfg: as the command line composes it.
        folder: of the new run.
        overrides: the words of the command line.

    Raises:
        UserError: the folder holds a run with other settings, or several processes cannot know which it is.
    """
    hydra = HydraConfig.get()
    given = any(word.startswith("name=") for word in overrides) or any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
    if is_child():
        folder = Path(os.environ[_FOLDER])
    elif not given and hydra.mode != RunMode.MULTIRUN:
        if started_together():
            raise UserError("resume=auto on several processes needs the name of the run: add name=NAME")
        found = _newest_unfinished(cfg)
        if found is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # made by Hydra for a new run
            folder = found
    os.environ[_FOLDER] = str(folder)
    if not (folder / CONFIG).is_file():
        cfg.resume = None
        return cfg, folder
    saved = read_saved_config(folder / CONFIG, whole=True)
    difference = _difference(saved, cfg)
    if difference is not None:
        key, was, given_now = difference
        raise UserError(
            f"resume=auto: {os.path.relpath(folder)} was started with {key}={was}, not {given_now}; name=NAME starts another run beside it"
        )
    resumed = _taking(saved, cfg, _FREE)
    resumed.name, resumed.resume = saved.name, str(folder)
    return resumed, folder


def _newest_unfinished(cfg: DictConfig) -> Path | None:
    def last_written(folder: Path) -> float:
        return max(file.stat().st_mtime for name in (CONFIG, LAST, PREVIOUS) if (file := folder / name).is_file())

    folders = [file.parent for file in Path(cfg.paths.runs).glob(f"*/{CONFIG}")]
    for folder in sorted(folders, key=last_written, reverse=True):
        if is_complete(folder, cfg.trainer.max_steps) or not _has_settings(folder, cfg):
            continue
        with contextlib.suppress(UserError), locked(folder):
            return folder.absolute()
    return None


def _has_settings(folder: Path, cfg: DictConfig) -> bool:
    """Whether a run has these settings. One whose configuration cannot be read is another one, and is named."""
    try:
        return _difference(read_saved_config(folder / CONFIG, whole=True), cfg) is None
    except (UserError, OmegaConfBaseException) as error:
        _log.warning("resume=auto leaves out a run: %s", shortened(str(error), 400))
        return False


def _difference(saved: DictConfig, cfg: DictConfig) -> tuple[str, Any, Any] | None:
    """The first setting, by its dotted key, that makes two runs of two configurations: its value in either."""
    was, now = _settings(_taking(saved, cfg, [key for key in _FREE if key != "data"])), _settings(cfg)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            return key, was.get(key), now.get(key)
    return None


def _taking(saved: DictConfig, cfg: DictConfig, keys: list[str] | tuple[str, ...]) -> DictConfig:
    """A copy of a saved configuration with the values of another under some keys, so that what refers to them follows."""
    taken = saved.copy()
    for key in keys:
        taken[key] = cfg[key]
    return taken


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What a run's weights depend on, by dotted keys: everything that is not free, and which data it is trained on."""
    values = _plain(cfg)
    kept = {key: value for key, value in values.items() if key not in _FREE}
    return _flat(kept | {"data": {key: value for key, value in values["data"].items() if key not in _HOW_DATA_IS_READ}})


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in node.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
