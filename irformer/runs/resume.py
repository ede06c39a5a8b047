"""Implement `resume=`: the configuration of a resumed run with the changes of the command line, and the choice of `resume=auto`.

The description of each key (`irformer.schema.sections`) defines whether a resumed run may change it.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from irformer.config.compose import trust_of
from irformer.config.saved import CONFIG, read_saved_config
from irformer.core.files import locked
from irformer.core.processes import is_child, started_together
from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.schema.roles import described, is_section, leaves
from irformer.training.resuming import PREVIOUS, is_complete
from irformer.weights.checkpoints import LAST

AUTO = "auto"

# Passes the folder found by the main process to the processes that Lightning starts with the same command line.
_FOLDER = "IRFORMER_RUN_FOLDER"

_log = logging.getLogger(__name__)


def resumed_config(cfg: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """Return the configuration of `resume=FOLDER`: the saved one with the changes of the command line.

    A group on the command line, such as `trainer=cpu`, changes only keys that affect where the run computes and what it displays. Keys
    such as `trainer.max_steps` change only if they are set explicitly. Overrides that would change the result are refused.

    Args:
        cfg: the configuration that the command line composes.
        folder: the run's folder.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such run, or an override would make it a different run.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume={cfg.resume}: no {folder / CONFIG}; give the folder of a run")
    saved = _with_new_keys(_saved(cfg, folder), cfg)
    for override in overrides:
        name = override.lstrip("+~").split("=", 1)[0].split("@")[0]
        if override.startswith("~"):
            _require_free(name, override, cfg)
            _remove(saved, name)
        elif "/" in name or name.split(".")[0] not in cfg:  # a group whose keys are in other sections, such as experiment
            raise _refusal(override, name, cfg)
        elif is_section(name):
            _take_group(saved, cfg, name, override)
        elif described(name).resume == "fixed":
            if _plain(OmegaConf.select(cfg, name)) != _plain(OmegaConf.select(saved, name)):
                raise _refusal(override, name, cfg)
        else:
            OmegaConf.update(saved, name, OmegaConf.select(cfg, name), force_add=True, merge=False)
    return saved


def _saved(cfg: DictConfig, folder: Path) -> DictConfig:
    """Read a run's configuration as untrusted data; only the user decides which packages it may name, never the file."""
    saved = read_saved_config(folder / CONFIG, trust_of(cfg), whole=True)
    saved.trust = cfg.trust
    return saved


def _take_group(saved: DictConfig, cfg: DictConfig, group: str, override: str) -> None:
    """Apply the keys of a group that do not affect results; refuse a group that would change results."""
    for name in map(str, cfg[group]):
        dotted = f"{group}.{name}"
        value = OmegaConf.select(cfg, dotted)
        if described(dotted).resume == "free":
            OmegaConf.update(saved, dotted, value, force_add=True, merge=False)
        elif described(dotted).resume == "fixed" and _plain(value) != _plain(OmegaConf.select(saved, dotted)):
            raise _refusal(override, dotted, cfg)


def _require_free(name: str, override: str, cfg: DictConfig) -> None:
    if "/" in name or described(name).resume == "fixed":
        raise _refusal(override, name, cfg)


def _refusal(override: str, name: str, cfg: DictConfig) -> UserError:
    return UserError(
        f"{override} together with resume: a resumed run keeps its {name}; init_from={cfg.resume} starts a new run from its weights"
    )


def _remove(saved: DictConfig, name: str) -> None:
    parent, _, last = name.rpartition(".")
    node = OmegaConf.select(saved, parent) if parent else saved
    if isinstance(node, DictConfig):
        node.pop(last, None)


def _with_new_keys(saved: DictConfig, cfg: DictConfig) -> DictConfig:
    """Add the keys that a newer version of irformer has introduced to a saved configuration."""
    for name in cfg:
        if name not in saved:
            saved[name] = cfg[name]
        elif is_section(str(name)):
            for inner in cfg[name]:
                if inner not in saved[name]:
                    saved[name][inner] = OmegaConf.to_container(cfg, resolve=False)[name][inner]  # type: ignore[index]
    return saved


def auto_resumed(cfg: DictConfig, folder: Path, overrides: list[str]) -> tuple[DictConfig, Path]:
    """Return the configuration and folder of `resume=auto`: those of a run to resume, or of a new run.

    If the run's name or hydra.run.dir is given, they determine the folder; in a sweep it is the job's folder. Otherwise it is the folder
    of the most recently written unfinished run with the same settings that no other process is training in.

    Args:
        cfg: the configuration that the command line composes.
        folder: the folder of the new run.
        overrides: the overrides on the command line.

    Raises:
        UserError: the folder contains a run with other settings, or several processes cannot agree on a run.
    """
    hydra = HydraConfig.get()
    given = any(word.startswith("name=") for word in overrides) or any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
    if is_child():
        folder = Path(os.environ[_FOLDER])
    elif not given and hydra.mode != RunMode.MULTIRUN:
        if started_together():
            raise UserError("resume=auto with several processes needs the name of the run: add name=NAME")
        found = _newest_unfinished(cfg)
        if found is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # created by Hydra for a new run
            folder = found
    os.environ[_FOLDER] = str(folder)
    if not (folder / CONFIG).is_file():
        cfg.resume = None
        return cfg, folder
    saved = _with_new_keys(_saved(cfg, folder), cfg)
    difference = _difference(saved, cfg)
    if difference is not None:
        name, was, now = difference
        raise UserError(f"resume=auto: {os.path.relpath(folder)} was started with {name}={was}, not {now}; name=NAME starts a new run")
    resumed = _with_changes(saved, cfg)
    resumed.name, resumed.resume = saved.name, str(folder)
    return resumed, folder


def _newest_unfinished(cfg: DictConfig) -> Path | None:
    def last_written(folder: Path) -> float:
        return max(file.stat().st_mtime for name in (CONFIG, LAST, PREVIOUS) if (file := folder / name).is_file())

    folders = [file.parent for file in Path(cfg.paths.runs).glob(f"*/{CONFIG}")]
    for folder in sorted(folders, key=last_written, reverse=True):
        try:
            other = is_complete(folder, cfg.trainer.max_steps) or _difference(_with_new_keys(_saved(cfg, folder), cfg), cfg)
        except (UserError, OmegaConfBaseException) as error:
            _log.warning("resume=auto: skipped %s: %s", os.path.relpath(folder), shortened(str(error), 400))
            continue
        if other:
            continue
        with contextlib.suppress(UserError), locked(folder):
            return folder.absolute()
    return None


def _difference(saved: DictConfig, cfg: DictConfig) -> tuple[str, Any, Any] | None:
    """Return the first key that makes two configurations different runs, with both values."""
    was, now = _identity(_with_changes(saved, cfg)), _identity(cfg)
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            return name, was.get(name), now.get(name)
    return None


def _identity(config: DictConfig) -> dict[str, Any]:
    """Return the values that identify a run, by dotted key."""
    return {name: value for name, value in leaves(_plain(config)) if described(name).identifies}


def _with_changes(saved: DictConfig, cfg: DictConfig) -> DictConfig:
    """Return a copy of a saved configuration with every value that a resumed run may change; references to these values follow."""
    changed = saved.copy()
    for name in map(str, cfg):
        if not is_section(name) and not described(name).identifies:
            changed[name] = cfg[name]
            continue
        for inner in map(str, cfg[name] if isinstance(cfg[name], DictConfig) else ()):
            if not described(f"{name}.{inner}").identifies:
                OmegaConf.update(changed, f"{name}.{inner}", cfg[name][inner], force_add=True, merge=False)
    return changed


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
