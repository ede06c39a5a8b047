"""What `resume=` means: a run's saved configuration, what the command line may change in it, and which run `resume=auto` resumes.

The description of each key (`irformer.schema.sections`) says whether a resumed run may change it.
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

# Passes the folder that the first process has found to those that Lightning starts by the same command line.
_FOLDER = "IRFORMER_RUN_FOLDER"

_log = logging.getLogger(__name__)


def resumed_config(cfg: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """The configuration of `resume=FOLDER`: the saved one, with the changes that the command line makes to it.

    A group on the command line, such as `trainer=cpu`, changes only keys that say where the run computes and what it shows. Keys such as
    `trainer.max_steps` change only if they are named. Whatever else would change what the run learns is refused.

    Args:
        cfg: as the command line composes it.
        folder: of the run.
        overrides: the words of the command line.

    Raises:
        UserError: there is no such run, or a word would make it another run.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume={cfg.resume}: no {folder / CONFIG}; give the folder of a run")
    saved = _with_new_keys(_saved(cfg, folder), cfg)
    for override in overrides:
        name = override.lstrip("+~").split("=", 1)[0].split("@")[0]
        if override.startswith("~"):
            _require_free(name, override, cfg)
            _remove(saved, name)
        elif "/" in name or name.split(".")[0] not in cfg:  # a group whose keys are elsewhere, as experiment
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
    """The configuration of a run, checked as data from elsewhere; which packages it may name is the user's word, never the file's."""
    saved = read_saved_config(folder / CONFIG, trust_of(cfg), whole=True)
    saved.trust = cfg.trust
    return saved


def _take_group(saved: DictConfig, cfg: DictConfig, group: str, override: str) -> None:
    """Take from a group what says where a run computes; refuse a group that would change what it learns."""
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
    """A saved configuration with the keys that a newer version of irformer has added."""
    for name in cfg:
        if name not in saved:
            saved[name] = cfg[name]
        elif is_section(str(name)):
            for inner in cfg[name]:
                if inner not in saved[name]:
                    saved[name][inner] = OmegaConf.to_container(cfg, resolve=False)[name][inner]  # type: ignore[index]
    return saved


def auto_resumed(cfg: DictConfig, folder: Path, overrides: list[str]) -> tuple[DictConfig, Path]:
    """Configuration and folder of `resume=auto`: those of a run that can be resumed, or of a new run.

    The folder is that of the run's name or of hydra.run.dir if one is given, and in a sweep that of the job. Otherwise it is that of the
    unfinished run with the same settings that was written to last, unless another process trains in it.

    Args:
        cfg: as the command line composes it.
        folder: of the new run.
        overrides: the words of the command line.

    Raises:
        UserError: the folder holds a run with other settings, or several processes cannot agree on a run.
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
    saved = _with_new_keys(_saved(cfg, folder), cfg)
    difference = _difference(saved, cfg)
    if difference is not None:
        name, was, now = difference
        raise UserError(
            f"resume=auto: {os.path.relpath(folder)} was started with {name}={was}, not {now}; name=NAME starts another run beside it"
        )
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
            _log.warning("resume=auto: passed over %s: %s", os.path.relpath(folder), shortened(str(error), 400))
            continue
        if other:
            continue
        with contextlib.suppress(UserError), locked(folder):
            return folder.absolute()
    return None


def _difference(saved: DictConfig, cfg: DictConfig) -> tuple[str, Any, Any] | None:
    """The first key that makes two configurations different runs, and its two values."""
    was, now = _identity(_with_changes(saved, cfg)), _identity(cfg)
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            return name, was.get(name), now.get(name)
    return None


def _identity(config: DictConfig) -> dict[str, Any]:
    """The values, by dotted key, that tell runs apart."""
    return {name: value for name, value in leaves(_plain(config)) if described(name).identifies}


def _with_changes(saved: DictConfig, cfg: DictConfig) -> DictConfig:
    """A copy of a saved configuration with all values of another that a resumed run may change, so that references to them follow."""
    taken = saved.copy()
    for name in map(str, cfg):
        if not is_section(name):
            if not described(name).identifies:
                taken[name] = cfg[name]
            continue
        for inner in map(str, cfg[name]):
            if not described(f"{name}.{inner}").identifies:
                OmegaConf.update(taken, f"{name}.{inner}", cfg[name][inner], force_add=True, merge=False)
    return taken


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
