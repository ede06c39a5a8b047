"""Annotations of configuration keys."""

import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

Resume = Literal["fixed", "named", "free"]


@dataclass(frozen=True)
class Key:
    """Annotation of a configuration key.

    Args:
        doc: one sentence for docs/configuration.md.
        result: whether the key affects training or the content of results.json. Runs that differ only in other keys are the same
            experiment, and other keys never appear in the name of a sweep's folder.
        resume: whether a resumed run may change the key. `fixed`: never, because it would be a different run. `named`: only if the command
            line names the key itself. `free`: also through its group, for example by `trainer=cpu`.
        identity: whether `resume=auto` resumes only runs with the same value; None means the same as `resume == "fixed"`.
        expects: replaces the description of the type in messages and docs.
    """

    doc: str
    result: bool = True
    resume: Resume = "fixed"
    identity: bool | None = None
    expects: str = ""

    @property
    def identifies(self) -> bool:
        """Whether `resume=auto` considers runs with different values to be different runs."""
        return self.resume == "fixed" if self.identity is None else self.identity


class Node:
    """Annotation of a part that names a class by `_target_`; the class describes its keys."""


class Arguments:
    """Annotation of a part that contains the constructor arguments of a fixed class.

    Args:
        target: dotted name of the class.
    """

    def __init__(self, target: str) -> None:
        self.target = target


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Split a type into the type without `Annotated` and its metadata."""
    metadata: list[Any] = []
    while hasattr(annotation, "__metadata__"):
        metadata += annotation.__metadata__
        annotation = annotation.__origin__
    return annotation, metadata


def key_of(annotation: Any) -> Key | None:
    """Return the `Key` in an annotation, or None."""
    return next((item for item in unwrap(annotation)[1] if isinstance(item, Key)), None)


def members(annotation: Any) -> list[Any]:
    """Return the members of a union; for another type, the type itself."""
    return list(get_args(annotation)) if get_origin(annotation) in (typing.Union, types.UnionType) else [annotation]
