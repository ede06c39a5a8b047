"""Override the configuration of a network that was read from a file."""

import copy
from collections.abc import Mapping
from typing import Any

from irformer.core.words import nearest
from irformer.errors import UserError


def override_model(model: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the `model` part of a configuration with some values replaced.

    Args:
        model: the configuration as plain values.
        overrides: new values by dotted or nested keys, `{"norm.ends": "ln"}` or `{"norm": {"ends": "ln"}}`.

    Raises:
        UserError: the configuration has no such key.
    """
    changed = copy.deepcopy(dict(model))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        node: Any = changed
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            known = [name for name in node or () if not name.startswith("_")] if isinstance(node, dict) else list(model)
            raise UserError(f"model.{key}: unknown key; known: {', '.join(known)}{nearest(last, known)}")
        if isinstance(value, Mapping) and isinstance(node[last], dict) and "_target_" not in value:  # another class has other keys
            node[last] = override_model(node[last], value)
        else:
            node[last] = value
    return changed
