"""Choose the folder of a run within a sweep: find an existing run, or create a name that needs no quoting."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from irformer.errors import UserError
from irformer.runs.arms import Config, differing_keys, flat_config, read_config
from irformer.schema.roles import described
from irformer.training.resuming import RESULTS, has_checkpoint

# Overrides that are not part of the suffix: task, model, norm and seed form the prefix, and the others choose how runs are started.
_UNNAMED = ("task", "model", "norm", "seed", "launcher", "sweeper", "trainer")
_LONGEST_NAME = 160  # characters; file systems allow 255 bytes


@dataclass(frozen=True)
class Job:
    """The properties of a sweep's run that determine its folder.

    Args:
        task: name of the task.
        model: name of the model.
        norm: name of the norm.
        seed: the run's seed.
        overrides: the run's overrides, such as `optim.lr=1e-4`, in any order.
    """

    task: str
    model: str
    norm: str
    seed: int
    overrides: Sequence[str]

    def override_keys(self) -> list[str]:
        """The keys of the overrides."""
        return [_key_and_value(override)[0] for override in self.overrides]

    def prefix(self) -> str:
        """The prefix shared by the names of all runs with this task, model, norm and seed."""
        return _plain(f"{self.task}-{self.model}-{self.norm}-s{self.seed}")

    def name(self, shared: Sequence[str] = ()) -> str:
        """Return `TASK-MODEL-NORM-sSEED` followed by a word for each override that distinguishes the run.

        A word is the last part of the key followed by the value: `lr1e-4` for `optim.lr=0.0001`, `loss_charbonnier` for `loss=charbonnier`.
        Keys with the same last part are written in full. Names consist of ASCII letters, digits and `_.+-`, so they need no quotes after
        `resume=`, `checkpoint=` or `init_from=`, either in a shell or in Hydra's grammar.

        Args:
            shared: keys with a single value in the whole sweep; they are omitted.
        """
        settings = [(key, value) for key, value in self._settings() if key not in shared]
        last_parts = Counter(_last_part(key) for key, _ in settings)
        words = [_word(_last_part(key) if last_parts[_last_part(key)] == 1 else key, value) for key, value in settings]
        return _shortened("-".join([self.prefix(), *words]))

    def old_name(self) -> str:
        """Return the name in irformer 0.1, with all overrides: `sr_x2-swinir-ln-s1-optim.lr=1e-4`."""
        words = [f"{key}={value}".translate({ord(sign): None for sign in "[]{}'\" "}) for key, value in self._settings()]
        words = [re.sub(r"[^\w.=,~+-]+", "_", word) for word in words]
        return _shortened("-".join([self.task, self.model, self.norm, f"s{self.seed}", *words]))

    def _settings(self) -> list[tuple[str, str]]:
        """Return key and value of each override that affects the result."""
        settings = [_key_and_value(override) for override in sorted(self.overrides)]
        return [(key, value) for key, value in settings if not _is_unnamed(key)]


def shared_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys that a multirun's command line sets to a single value, so they do not distinguish its runs.

    >>> shared_keys(["norm=ln,iln", "optim.lr=1e-4", "seed=range(3)"])
    ['optim.lr']

    Args:
        overrides: overrides on the command line.
    """
    parser = OverridesParser.create()
    return [_key_and_value(override)[0] for override in overrides if not parser.parse_override(override).is_sweep_override()]


def name_by_swept_keys(config: Any, overrides: Sequence[str]) -> None:
    """Pass a multirun's shared keys to its runs, with any launcher.

    They are passed as an override of the Hydra key for this purpose, because each launcher composes the configuration of a run again.

    Args:
        config: the multirun's configuration including hydra; one override is appended to `hydra.overrides.hydra`.
        overrides: overrides on the multirun's command line.
    """
    keys = ",".join(f"'{key}'" for key in shared_keys(overrides))  # quoted, because Hydra's grammar does not allow a bare `~key`
    OmegaConf.set_readonly(config, False)
    config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{keys}]")


def find_job_folder(sweep: Path, job: Job, shared: Sequence[str], config: Callable[[], Config]) -> str:
    """Return the name of a run's folder within a sweep, given the existing runs, so that a sweep can be extended by values and keys.

    The candidates are, in this order:

    1. The name in irformer 0.1, if this folder contains a run.
    2. The name without the shared keys, if this folder is free or contains this configuration; but if another folder with this task,
       model, norm and seed contains this configuration (the sweep was extended by a key, or the run was started alone), that folder.
    3. If the folder of 2 contains another configuration, and the run's own overrides account for every difference (a later sweep with
       another value of a shared key): the name that includes these overrides.
    4. Otherwise the name of 2; the run is refused there because the folder contains a run with another configuration.

    Args:
        sweep: the folder of the sweep; it may not exist yet.
        job: the run.
        shared: keys with a single value in the whole sweep.
        config: returns the run's configuration (see `flat_config`).
    """
    name = job.name(shared)
    if not sweep.is_dir():
        return name
    if _holds_run(sweep / job.old_name()):
        return job.old_name()
    wanted = config()
    there = _config_of(sweep / name)
    differing = [] if there is None else differing_keys(there, wanted)
    if there is not None and not differing:
        return name
    for folder in sorted(sweep.glob(f"{job.prefix()}*")):
        if folder.name != name and (other := _config_of(folder)) is not None and not differing_keys(other, wanted):
            return folder.name
    accounts = [key for key in job.override_keys() if any(other == key or other.startswith(f"{key}.") for other in differing)]
    accounted = all(any(other == key or other.startswith(f"{key}.") for key in accounts) for other in differing)
    return job.name([key for key in shared if key not in accounts]) if accounted else name


def _job_folder(
    task: str, model: str, norm: str, seed: int, overrides: Sequence[str], shared: Sequence[str], sweep: str, *, _root_: DictConfig
) -> str:
    """Resolve `hydra.sweep.subdir`."""

    def config() -> Config:
        return flat_config(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]))

    return find_job_folder(Path(sweep), Job(task, model, norm, seed, list(overrides)), list(shared), config)


def _holds_run(folder: Path) -> bool:
    return has_checkpoint(folder) or (folder / RESULTS).is_file()


def _config_of(folder: Path) -> Config | None:
    """Return the configuration of the run in a folder, or None if there is no run or its configuration cannot be read."""
    if not _holds_run(folder):
        return None
    try:
        return flat_config(read_config(folder / "config.yaml"))
    except UserError:
        return None


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _is_unnamed(key: str) -> bool:
    return key in _UNNAMED or key.startswith(("hydra.", "hydra/")) or not described(key).result


def _last_part(key: str) -> str:
    return re.split(r"[./]", key)[-1]


def _word(key: str, value: str) -> str:
    value = _plain(_number(value))
    return f"{_plain(key)}{'' if value[:1].isdigit() or value[:1] in ('-', '+', '.') else '_'}{value}"


def _number(text: str) -> str:
    """Normalize non-integer numbers to their shortest spelling: 1e-4 for 0.0001, 0.5 for 5e-1."""
    if not re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", text):
        return text
    number = Decimal(repr(float(text))).normalize()
    return min(f"{number:f}", f"{number:e}", key=len)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_")


def _shortened(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


OmegaConf.register_new_resolver("irformer.job_folder", _job_folder, replace=True)
