"""Tasks from configurations: building them, comparing them with configs/task, and recreating them from checkpoints."""

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
from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.schema.check import check_node
from irformer.tasks.contract import require_task
from irformer.tasks.task import Task

_RECORDED = "_recorded"


def build_task(node: DictConfig, metrics: DictConfig | Mapping[str, Any] | None = None) -> Task:
    """Build a task; `Task.changes` lists the differences from the task of the same name in configs/task.

    Args:
        node: the `task` section of the configuration.
        metrics: the `metrics` section: additional metrics, which the protocol may refer to.

    Raises:
        UserError: a class does not exist, rejects an argument or does not meet its contract.
    """
    config: Any = OmegaConf.to_container(node, resolve=True)
    check_node("task", config)
    task = _with_metrics(node, metrics) if metrics else instantiate(node)
    require_task(task, str(config.get("_target_")))
    changes = changed_keys(config)
    changes.pop("test_sets", None)  # not part of the task's definition
    selection = _selection(task.name, config)
    if changes and selection is not None:
        original: Task = instantiate(_original(*selection).task)
        # A preset covers all tasks, and each task drops the rules that do not apply.
        without_effect = [
            key
            for key in changes
            if key.startswith("protocol.") and getattr(original.protocol, key[9:], None) == getattr(task.protocol, key[9:], None)
        ]
        changes = {key: change for key, change in changes.items() if key not in without_effect}
    return replace(task, changes=changes)


def _with_metrics(node: DictConfig, metrics: DictConfig | Mapping[str, Any]) -> Task:
    build = instantiate(node, _partial_=True)  # Hydra would copy objects passed as arguments
    extra_metrics = build_metrics(metrics, node.channels)
    try:
        return build(extra_metrics=extra_metrics)
    except (TypeError, ValueError) as error:
        raise UserError(f"{node.get('name') or node.get('_target_')}: {error}") from error


def changed_keys(task: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the minimal set of changes from the task of the same name in configs/task to the given one, without dependent changes.

    Args:
        task: the resolved `task` section of a configuration, as plain values.

    Returns:
        By dotted key, the value in configs/task and the given one: `{"protocol.sigma": (25, 35)}`. Empty if configs/task has no task of
        this name. A member of a family, such as `denoise_color_35`, is compared with the family at its level.
    """
    selection = _selection(str(task.get("name")), task)
    if selection is None:
        return {}
    here = _flat(task)
    config = copy.deepcopy(_original(*selection))
    literal = _flat(OmegaConf.to_container(config.task, resolve=False))
    before = _flat(OmegaConf.to_container(config.task, resolve=True))
    changes = {}
    dependent = {key for key, value in literal.items() if isinstance(value, str) and "${" in value}
    for keys in (here.keys() - dependent, dependent & here.keys()):  # keys that refer to others follow their changes
        now = _flat(OmegaConf.to_container(config.task, resolve=True))
        for key in (key for key in here if key in keys):
            if key not in now or now[key] != here[key]:
                changes[key] = (before.get(key), here[key])
                OmegaConf.update(config, f"task.{key}", here[key], force_add=True)
    return changes


def recorded_task(name: str, task: Mapping[str, Any] | None, overrides: Sequence[str]) -> DictConfig:
    """Compose a benchmark configuration for the task of a checkpoint, with overrides from the command line.

    Args:
        name: name of the task.
        task: the resolved `task` section of the checkpoint's training configuration; None if only the name is known.
        overrides: overrides from the command line, without `task=`.

    Raises:
        UserError: an override does not apply to this task, or configs/task does not have the task.
    """
    task_overrides = [word for word in overrides if word.lstrip("+~").startswith(("task.", "protocol="))]
    selection = _selection(name, task or {})
    if selection is None:
        if task is None or task_overrides:
            remedy = f"{task_overrides[0]} needs task=NAME" if task_overrides else "add task=NAME"
            raise UserError(f"the checkpoint was trained for the task {name}, which configs/task does not have: {remedy}")
        config = compose("benchmark", list(overrides))
        OmegaConf.set_struct(config, False)
        config.task = dict(task)
        return config
    changes = changed_keys(task or {})
    file, levels = selection
    recorded = OmegaConf.create({"defaults": [file, "_self_"], **dict(levels)})
    for key, (_, value) in changes.items():
        OmegaConf.update(recorded, key, value, force_add=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task" / f"{_RECORDED}.yaml"
        path.parent.mkdir()
        OmegaConf.save(recorded, path)
        try:
            return compose("benchmark", [f"task={_RECORDED}", *overrides, f"hydra.searchpath=['file://{folder}']"])
        except ConfigCompositionException as error:
            word = next((word for word in overrides if f"'{word.partition('=')[0].lstrip('+~')}'" in str(error)), None)
            if word is None:
                raise
            raise UserError(f"{word}: the task of the checkpoint, {name}, has no such key") from None


def named_task(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a benchmark configuration for a task of `tasks=`, with overrides from the command line.

    Args:
        name: name of the task, or of a level of a family, such as `denoise_color_35`.
        overrides: overrides from the command line.

    Raises:
        UserError: there is no such task, or an override does not apply to it.
    """
    if _selection(name, {}) is None:
        known = complete_tasks()
        raise UserError(f"tasks: unknown task {name}; known: {', '.join(known)}{nearest(name, known)}")
    return recorded_task(name, None, overrides)


def complete_tasks() -> list[str]:
    """List the tasks in configs/task that need no further key: all except families (`denoise_color`, `pairs`)."""
    return [name for name in _files() if "${" not in _literal_name(name)]


_Levels = tuple[tuple[str, int | float], ...]


def _selection(name: str, task: Mapping[str, Any]) -> tuple[str, _Levels] | None:
    """Find the file of a task in configs/task and, for a member of a family, the keys in its name with their values.

    A published level such as `denoise_color_25` has its own file and also belongs to a family; the family is used if the task has its key.
    """
    for file in _files():
        if name.startswith(file) and (levels := _levels(file, name)) and (name not in _files() or dict(levels).keys() <= task.keys()):
            return file, levels
    return (name, ()) if name in _files() else None


def _levels(family: str, name: str) -> _Levels:
    """Return the keys in the name of a family with the values that produce the given name; empty if there are none."""
    parts = _REFERENCE.split(_literal_name(family))  # text, key, text, ...
    pattern = "".join(_NUMBER if i % 2 else re.escape(part) for i, part in enumerate(parts))
    match = re.fullmatch(pattern, name)
    values = [float(text) if re.search("[.e]", text) else int(text) for text in match.groups()] if match else []
    return tuple(zip(parts[1::2], values, strict=True)) if match else ()


_REFERENCE = re.compile(r"\$\{(?:irformer\.level:\$\{)?task\.(\w+)\}+")
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"


def _literal_name(file: str) -> str:
    return str(OmegaConf.to_container(_original(file).task, resolve=False)["name"])  # type: ignore[call-overload,index]


@cache
def _original(file: str, levels: _Levels = ()) -> DictConfig:
    """Compose a configuration with an unchanged task of configs/task, at the given levels of a family."""
    return compose("benchmark", [f"task={file}", *(f"task.{key}={level}" for key, level in levels), "checkpoint=none"])


def _files() -> list[str]:
    return [name for name in options("task") if not name.startswith("_")]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten to values by dotted key; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat
