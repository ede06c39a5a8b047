"""Lookup of the description of a key of train.yaml by its dotted name."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_type_hints

from irformer.schema.keys import Key, key_of, unwrap
from irformer.schema.phrases import show
from irformer.schema.sections import SECTIONS, Model, Train


@cache
def described(name: str) -> Key:
    """Return the description of a dotted key; keys inside a node, such as `callbacks.probe.every`, have that of the enclosing part.

    `model` is a node with keys of its own, such as `model.checkpointing`.

    Keys without a description, such as unknown ones, are considered to affect the result.
    """
    found = Key("", result=True, resume="fixed")
    section: Any = Train
    for word in name.split("."):
        annotation = get_type_hints(section, include_extras=True).get(word)
        if annotation is None:
            return found
        found = key_of(annotation) or found
        section = unwrap(annotation)[0]
        if section is not Model and section not in SECTIONS:
            return found
    return found


def network_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `model` part of a configuration without the keys that are not arguments of the network's class."""
    return {key: value for key, value in model.items() if key not in get_type_hints(Model)}


def is_section(name: str) -> bool:
    """Return whether a top-level key is a part with nested keys, such as `trainer`."""
    annotation = get_type_hints(Train, include_extras=True).get(name)
    return annotation is not None and unwrap(annotation)[0] in SECTIONS


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a configuration with their dotted keys; an empty mapping is a value."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changed_keys(saved: Mapping[str, Any], resumed: Mapping[str, Any]) -> list[str]:
    """Describe the changes of a resumed run, one phrase per key that affects its result.

    Args:
        saved: the saved configuration, as plain resolved values.
        resumed: the configuration of the resumed run.
    """
    # An empty part says no more than one that is missing, as in the configurations of older versions.
    was, now = ({name: value for name, value in leaves(config) if value != {}} for config in (saved, resumed))
    names: list[str] = [name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name) and described(name).result]
    return [f"{name} from {_shown(was, name)} to {_shown(now, name)}" for name in names]


def _shown(values: dict[str, Any], name: str) -> str:
    return show(values[name]) if name in values else "unset"
