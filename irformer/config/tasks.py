"""Tasks as configurations: what sets one apart from the task of that name in configs/task, and how it is composed again from a record."""

import copy
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from irformer.config.compose import compose, instantiate, options
from irformer.config.metrics import build_metrics
from irformer.errors import UserError
from irformer.schema.check import check_node
from irformer.tasks.contract import require_task
from irformer.tasks.task import Task

_RECORDED = "_recorded"


def build_task(node: DictConfig, metrics: DictConfig | Mapping[str, Any] | None = None) -> Task:
    """Build the task of a configuration; `Task.changes` says where it departs from the task of that name in configs/task.

    Args:
        node: the `task` part of the configuration.
        metrics: its `metrics` part: metrics besides the built-in ones, which the protocol may name.

    Raises:
        UserError: a class does not exist, refuses an argument or lacks a part of its contract.
    """
    config: Any = OmegaConf.to_container(node, resolve=True)
    check_node("task", config)
    task = _with_metrics(node, metrics) if metrics else instantiate(node)
    require_task(task, str(config.get("_target_")))
    changes = changed_keys(config)
    changes.pop("test_sets", None)  # says where a task is measured, not what it is
    selection = _selection(task.name, config)
    if changes and selection is not None:
        own: Task = instantiate(_own(*selection).task)
        # A preset speaks of all tasks, and a task drops the rules that it has no use for.
        without_effect = [
            key
            for key in changes
            if key.startswith("protocol.") and getattr(own.protocol, key[9:], None) == getattr(task.protocol, key[9:], None)
        ]
        changes = {key: change for key, change in changes.items() if key not in without_effect}
    return replace(task, changes=changes)


def _with_metrics(node: DictConfig, metrics: DictConfig | Mapping[str, Any]) -> Task:
    build = instantiate(node, _partial_=True)  # Hydra would copy objects that it is given
    extra_metrics = build_metrics(metrics, node.channels)
    try:
        return build(extra_metrics=extra_metrics)
    except (TypeError, ValueError) as error:
        raise UserError(f"{node.get('name') or node.get('_target_')}: {error}") from error


def changed_keys(task: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fewest changes that make the task of that name in configs/task the given one; what follows from a change is not listed.

    Args:
        task: the resolved `task` part of a configuration, plain values.

    Returns:
        By dotted key the value of configs/task and the given one, `{"protocol.sigma": (25, 35)}`. Empty where configs/task has no task of
        that name to compare with. A member of a family, `denoise_color_35`, is compared with the family at its level.
    """
    selection = _selection(str(task.get("name")), task)
    if selection is None:
        return {}
    here = _flat(task)
    config = copy.deepcopy(_own(*selection))
    literal = _flat(OmegaConf.to_container(config.task, resolve=False))
    before = _flat(OmegaConf.to_container(config.task, resolve=True))
    changes = {}
    follows = {key for key, value in literal.items() if isinstance(value, str) and "${" in value}
    for keys in (here.keys() - follows, follows & here.keys()):  # what refers to a key follows its change
        now = _flat(OmegaConf.to_container(config.task, resolve=True))
        for key in (key for key in here if key in keys):
            if key not in now or now[key] != here[key]:
                changes[key] = (before.get(key), here[key])
                OmegaConf.update(config, f"task.{key}", here[key], force_add=True)
    return changes


def recorded_task(name: str, task: Mapping[str, Any] | None, words: Sequence[str]) -> DictConfig:
    """Compose a benchmark's configuration for the task that a checkpoint was trained for, with words of the command line on top.

    Args:
        name: of the task.
        task: the resolved `task` part of the configuration that the checkpoint was trained with; None where only the name is known.
        words: of the command line, without `task=`.

    Raises:
        UserError: a word does not fit this task, or configs/task does not have it.
    """
    on_top = [word for word in words if word.lstrip("+~").startswith(("task.", "protocol="))]
    selection = _selection(name, task or {})
    if selection is None:
        if task is None or on_top:
            what = f"{on_top[0]} needs task=NAME" if on_top else "give task=NAME"
            raise UserError(f"the checkpoint was trained for the task {name}, which configs/task does not have: {what}")
        config = compose("benchmark", list(words))
        OmegaConf.set_struct(config, False)
        config.task = dict(task)
        return config
    changes = changed_keys(task or {})
    own, levels = selection
    recorded = OmegaConf.create({"defaults": [own, "_self_"], **dict(levels)})
    for key, (_, value) in changes.items():
        OmegaConf.update(recorded, key, value, force_add=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task" / f"{_RECORDED}.yaml"
        file.parent.mkdir()
        OmegaConf.save(recorded, file)
        try:
            return compose("benchmark", [f"task={_RECORDED}", *words, f"hydra.searchpath=['file://{folder}']"])
        except ConfigCompositionException as error:
            word = next((word for word in words if f"'{word.partition('=')[0].lstrip('+~')}'" in str(error)), None)
            if word is None:
                raise
            raise UserError(f"{word}: the task {name}, for which the checkpoint was trained, has no such key") from None


def complete_tasks() -> list[str]:
    """The tasks of configs/task that need no further key: all but families (`denoise_color`, `pairs`), whose names depend on a level."""
    return [name for name in _files() if "${" not in _literal_name(name)]


_Levels = tuple[tuple[str, int | float], ...]


def _selection(name: str, task: Mapping[str, Any]) -> tuple[str, _Levels] | None:
    """What chooses a task in configs/task: its file and, for a member of a family, the keys in its name with their values.

    A published level has a file of its own (`denoise_color_25`) and is a member of its family, too: the family if the task has its key.
    """
    for file in _files():
        if name.startswith(file) and (levels := _levels(file, name)) and (name not in _files() or dict(levels).keys() <= task.keys()):
            return file, levels
    return (name, ()) if name in _files() else None


def _levels(family: str, name: str) -> _Levels:
    """The keys that the name of a family refers to, with the values that make it the given name; none if nothing does."""
    parts = _REFERENCE.split(_literal_name(family))  # text, key, text, ...
    pattern = "".join(_NUMBER if i % 2 else re.escape(part) for i, part in enumerate(parts))
    match = re.fullmatch(pattern, name)
    values = [float(text) if re.search("[.e]", text) else int(text) for text in match.groups()] if match else []
    return tuple(zip(parts[1::2], values, strict=True)) if match else ()


_REFERENCE = re.compile(r"\$\{(?:irformer\.level:\$\{)?task\.(\w+)\}+")
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


def _literal_name(file: str) -> str:
    return str(OmegaConf.to_container(_own(file).task, resolve=False)["name"])  # type: ignore[call-overload,index]


@cache
def _own(file: str, levels: _Levels = ()) -> DictConfig:
    """A configuration with a task as configs/task has it, at the levels of a family."""
    return compose("benchmark", [f"task={file}", *(f"task.{key}={level}" for key, level in levels), "checkpoint=none"])


def _files() -> list[str]:
    return [name for name in options("task") if not name.startswith("_")]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat
