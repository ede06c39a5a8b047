"""Types and values as text, for error messages and docs/configuration.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen

from irformer.schema.keys import Key, Node, members, unwrap

_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "values true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "names"),
    Path: ("a path", "paths"),
    NoneType: ("null", "null"),
}


_OBJECT = "a _target_ class and its arguments"  # an object, which a node builds


def describe(annotation: Any) -> str:
    """Describe a type in words, as in "expected a whole number, 1 or more"."""
    kind, metadata = unwrap(annotation)
    for item in metadata:
        if isinstance(item, Key) and item.expects:
            return item.expects
    options = members(kind)
    if len(options) > 1:
        named = [words for option in options if option is not NoneType and (words := describe(option)) != _OBJECT]
        if "a number" in named:
            named = [words for words in named if words != "a whole number"]
        words = _alternatives(list(dict.fromkeys(named))) if named else _OBJECT
        return f"{words}, or null" if NoneType in options else words
    if get_origin(kind) is Literal:
        return _alternatives([str(value) or "empty text" for value in get_args(kind)])
    if get_origin(kind) in (list, tuple, Sequence):
        inner = [argument for argument in get_args(kind) if argument is not Ellipsis]
        least = next((item.min_length for item in _flat(metadata) if isinstance(item, MinLen)), 0)
        most = next((item.max_length for item in _flat(metadata) if isinstance(item, MaxLen)), None)
        start = "a list of" + (f" {least}" if least == most else f" {least} to {most}" if most else f" {least} or more" if least else "")
        return f"{start} {_plural(inner[0])}" if inner else "a list"
    if isinstance(kind, type) and issubclass(kind, Node):
        return _OBJECT
    if get_origin(kind) in (dict, Mapping):
        return f"names with {_plural(get_args(kind)[1])}"
    singular = _WORDS.get(kind, (_OBJECT, ""))[0]
    if kind is str and any(isinstance(item, MinLen) for item in metadata):
        return "non-empty text"
    return singular + _bounds(kind, metadata)


def _plural(annotation: Any) -> str:
    kind, metadata = unwrap(annotation)
    for item in metadata:
        if isinstance(item, Key) and item.expects:
            return item.expects
    options = [option for option in members(kind) if describe(option) != _OBJECT]
    if len(options) == 1 and options[0] is not kind:
        return _plural(options[0])
    if kind not in _WORDS:
        return f"values, each {describe(annotation)}"
    bounds = _bounds(kind, metadata)
    if not bounds:
        return _WORDS[kind][1]
    return f"{_WORDS[kind][1]}, each {bounds.lstrip(', ')}"


def _bounds(kind: Any, metadata: Sequence[Any]) -> str:
    """Describe the range of a number, to follow its type: ", 1 or more", " above 0", " from 0 to 1"."""
    low = high = ""
    for item in _flat(metadata):
        if isinstance(item, Ge):
            low = f"{item.ge:,}"
        elif isinstance(item, Gt):
            low = f"above {item.gt:,}"
        elif isinstance(item, Le):
            high = f"{item.le:,}"
        elif isinstance(item, Lt):
            high = f"below {item.lt:,}"
    if low and high:
        return f" from {low} to {high}" if not low.startswith("above") else f" {low}, up to {high}"
    if low:
        return f" {low}" if low.startswith("above") else f", {low} or more"
    if high:
        return f" {high}" if high.startswith("below") else f", {high} or less"
    return ""


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Expand grouped metadata, such as `Interval`."""
    return [part for item in metadata for part in (item if isinstance(item, GroupedMetadata) else [item])]


def _alternatives(words: Sequence[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def show(value: Any) -> str:
    """Format a value as typed by the user, in one line of bounded length; text that looks like another type is quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        text = f"[{', '.join(show(part) for part in value)}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{name}: {show(part)}' for name, part in value.items())}}}"
    else:
        text = repr(value) if isinstance(value, str) and _looks_like_another_type(value) else str(value)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _looks_like_another_type(text: str) -> bool:
    """Return whether a text would be parsed as another type, or as nothing, on the command line."""
    if text.strip() != text or text.lower() in ("", "null", "true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return text.lower() not in ("nan", "inf", "-inf", "infinity")
