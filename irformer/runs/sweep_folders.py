"""Which folder a run of a sweep belongs in: a name that can be pasted back, and the run that is there already."""

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

# Overrides that are never words of a name: task, model, norm and seed are at its front, the others choose where and how runs are started.
_UNNAMED = ("task", "model", "norm", "seed", "launcher", "sweeper", "trainer")
_LONGEST_NAME = 160  # characters; file systems end at 255 bytes


@dataclass(frozen=True)
class Job:
    """A run of a sweep, as far as its folder is concerned.

    Args:
        task: name of the task.
        model: name of the model.
        norm: name of the norm.
        seed: of the run.
        overrides: of the run, as `optim.lr=1e-4`, in any order.
    """

    task: str
    model: str
    norm: str
    seed: int
    overrides: Sequence[str]

    def override_keys(self) -> list[str]:
        """The keys of the overrides."""
        return [_key_and_value(override)[0] for override in self.overrides]

    def front(self) -> str:
        """What the names of all runs of this task, model, norm and seed begin with."""
        return _plain(f"{self.task}-{self.model}-{self.norm}-s{self.seed}")

    def name(self, shared: Sequence[str] = ()) -> str:
        """`TASK-MODEL-NORM-sSEED`, then a word for each override that sets the run apart.

        A word is the last part of the key with the value: `lr1e-4` for `optim.lr=0.0001`, `loss_charbonnier` for `loss=charbonnier`. Where
        two keys end in the same part, both are given in full. Names consist of ASCII letters, digits and `_.+-`, so that a folder can be
        pasted after `resume=`, `checkpoint=` or `init_from=` without quotes, in a shell and in Hydra's grammar.

        Args:
            shared: keys that have one value in the whole sweep; they get no word.
        """
        settings = [(key, value) for key, value in self._settings() if key not in shared]
        last_parts = Counter(_last_part(key) for key, _ in settings)
        words = [_word(_last_part(key) if last_parts[_last_part(key)] == 1 else key, value) for key, value in settings]
        return _shortened("-".join([self.front(), *words]))

    def old_name(self) -> str:
        """The name that irformer 0.1 gave, with all overrides: `sr_x2-swinir-ln-s1-optim.lr=1e-4`."""
        words = [f"{key}={value}".translate({ord(sign): None for sign in "[]{}'\" "}) for key, value in self._settings()]
        words = [re.sub(r"[^\w.=,~+-]+", "_", word) for word in words]
        return _shortened("-".join([self.task, self.model, self.norm, f"s{self.seed}", *words]))

    def _settings(self) -> list[tuple[str, str]]:
        """Key and value of each override that says what is trained."""
        settings = [_key_and_value(override) for override in sorted(self.overrides)]
        return [(key, value) for key, value in settings if not _is_unnamed(key)]


def shared_keys(words: Sequence[str]) -> list[str]:
    """The keys that a multirun's command line sets to one value, and that therefore set none of its runs apart.

    >>> shared_keys(["norm=ln,iln", "optim.lr=1e-4", "seed=range(3)"])
    ['optim.lr']

    Args:
        words: overrides of the command line.
    """
    parser = OverridesParser.create()
    return [_key_and_value(word)[0] for word in words if not parser.parse_override(word).is_sweep_override()]


def name_by_swept_keys(config: Any, words: Sequence[str]) -> None:
    """Pass a multirun's shared keys on to its runs, whatever launches them.

    They travel as an override of Hydra's own key for this purpose, since each launcher composes the configuration of a run anew.

    Args:
        config: of the multirun, hydra included; one override is appended to `hydra.overrides.hydra`.
        words: overrides of the multirun's command line.
    """
    keys = ",".join(f"'{key}'" for key in shared_keys(words))  # quoted, since `~key` is none of Hydra's bare words
    OmegaConf.set_readonly(config, False)
    config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{keys}]")


def find_job_folder(sweep: Path, job: Job, shared: Sequence[str], config: Callable[[], Config]) -> str:
    """The folder of a run within a sweep, from what the sweep holds already, so that a sweep can grow by values and by keys.

    In this order:

    1. The name that irformer 0.1 gave, if a run is there.
    2. The name without words for the shared keys, if it is free or holds this configuration; but if another folder of this task, model,
       norm and seed holds this configuration (the sweep has grown by a key, or the run was started alone), that one.
    3. If that name holds another configuration, and the run's own overrides account for every difference (a further sweep with another
       value for a shared key): the name with words for these overrides too.
    4. Otherwise the name of 2, where the run is refused, since its folder holds a run of another configuration.

    Args:
        sweep: the folder of the sweep; it may not exist yet.
        job: the run.
        shared: keys that have one value in the whole sweep.
        config: gives the run's configuration (see `flat_config`).

    Returns:
        The name of the folder.
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
    for folder in sorted(sweep.glob(f"{job.front()}*")):
        if folder.name != name and (other := _config_of(folder)) is not None and not differing_keys(other, wanted):
            return folder.name
    accounts = [key for key in job.override_keys() if any(other == key or other.startswith(f"{key}.") for other in differing)]
    accounted = all(any(other == key or other.startswith(f"{key}.") for key in accounts) for other in differing)
    return job.name([key for key in shared if key not in accounts]) if accounted else name


def _job_folder(
    task: str, model: str, norm: str, seed: int, overrides: Sequence[str], shared: Sequence[str], sweep: str, *, _root_: DictConfig
) -> str:
    """The resolver behind `hydra.sweep.subdir`."""

    def config() -> Config:
        return flat_config(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]))

    return find_job_folder(Path(sweep), Job(task, model, norm, seed, list(overrides)), list(shared), config)


def _holds_run(folder: Path) -> bool:
    return has_checkpoint(folder) or (folder / RESULTS).is_file()


def _config_of(folder: Path) -> Config | None:
    """The configuration of the run in a folder; None where there is no run, or none whose configuration can be read."""
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
    """One spelling for each number that is not an integer, the shorter one: 1e-4 for 0.0001, 0.5 for 5e-1."""
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
