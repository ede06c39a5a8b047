"""The record in a weights file: plain JSON that describes the network, validated before anything is built from it."""

import json
import math
from typing import Any

from irformer.core.moved import with_current_names
from irformer.core.trust import shortened
from irformer.errors import UserError

_MAX_CHARACTERS = 2**20
_MAX_DEPTH = 32
# Sum of all sizes in a network's configuration (channels, blocks, heads). The largest published networks stay below 1,000.
_MAX_SIZES = 2**17


def parse_record(text: Any) -> dict[str, Any]:
    """Parse and validate a record.

    Args:
        text: the JSON text in the file.

    Returns:
        `model` (the configuration of the network), `task` (a name or None), `step` (or None), `task_config` (the `task` part of the
        configuration, or None) and `validation` (metrics by name).

    Raises:
        UserError: it is not plain JSON, is larger or deeper than any record, contains an interpolation, or lacks the configuration of the
            network.
    """
    if not isinstance(text, str):
        raise UserError(f"the record of its network is a {type(text).__name__}; expected JSON text")
    if len(text) > _MAX_CHARACTERS:
        raise UserError(f"the record of its network has {len(text):,} characters; expected at most {_MAX_CHARACTERS:,}")
    try:
        record = json.loads(text, object_pairs_hook=_unique)
    except UserError:
        raise
    except (ValueError, RecursionError):
        raise UserError("the record of its network cannot be read; expected JSON with its configuration under model") from None
    if not isinstance(record, dict) or not isinstance(record.get("model"), dict):
        raise UserError("the record of its network cannot be read; expected JSON with its configuration under model")
    model, task, step = record["model"], record.get("task"), record.get("step")
    task_config, validation = record.get("task_config"), record.get("validation", {})
    _require_plain({key: value for key, value in record.items() if key != "validation"}, "")
    sizes = sum(_sizes(model))
    if sizes > _MAX_SIZES:
        raise UserError(f"the sizes in the record of its network add up to more than {_MAX_SIZES:,}; expected those of a real network")
    if task is not None and not isinstance(task, str):
        raise UserError(f"task={shortened(task)} in its record: expected the name of a task or null")
    if step is not None and (not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63):
        raise UserError(f"step={shortened(step)} in its record: expected a number of optimizer steps or null")
    if task_config is not None and not isinstance(task_config, dict):
        raise UserError(f"task_config={shortened(task_config)} in its record: expected the `task` part of a configuration or null")
    # A metric of a perfect restoration may be infinite.
    if not isinstance(validation, dict) or not all(isinstance(value, int | float) for value in validation.values()):
        raise UserError("validation in its record: expected metrics by name")
    model, task_config = with_current_names(model), with_current_names(task_config)
    return {"model": model, "task": task, "step": step, "task_config": task_config, "validation": validation}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{shortened(twice)} occurs twice in the record of its network; expected each key once")
    return record


def _require_plain(node: Any, key: str, depth: int = 0) -> None:
    """Refuse interpolations, non-finite numbers, and text that does not fit in one line, at any depth."""
    where = shortened(key) or "its record"
    if depth > _MAX_DEPTH:
        raise UserError(f"{where}: nested deeper than {_MAX_DEPTH} levels in the record of its network")
    if isinstance(node, dict):
        for name, value in node.items():
            _require_text(name, where)
            _require_plain(value, f"{key}.{name}".lstrip("."), depth + 1)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _require_plain(value, f"{key}[{i}]", depth + 1)
    elif isinstance(node, str):
        _require_text(node, where)
    elif isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{where}={node} in its record: expected a finite number")


def _require_text(text: str, where: str) -> None:
    if "${" in text:
        raise UserError(f"{where} in its record contains {shortened(text)}; expected plain data without interpolations")
    if not text.isprintable() or len(text) > 1000:
        raise UserError(f"{where} in its record contains {shortened(text)}; expected at most 1,000 printable characters")


def _sizes(node: Any) -> list[int]:
    if isinstance(node, dict):
        return [size for value in node.values() for size in _sizes(value)]
    if isinstance(node, list):
        return [len(node), *(size for value in node for size in _sizes(value))]
    return [abs(node)] if isinstance(node, int) else []
