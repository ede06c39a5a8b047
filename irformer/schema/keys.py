"""What is said of a configuration key besides its type."""

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
        result: the key affects what a run learns or what its results.json holds. Two runs that differ only in keys without a
            result are the same experiment, and such keys never appear in the name of a sweep's folder.
        resume: whether a resumed run may change the key. `fixed`: never, it would be another run. `named`: only if the command line names
            the key itself. `free`: also through its group, as `trainer=cpu`.
        identity: `resume=auto` resumes only runs with the same value; None means keys that are `fixed`.
        expects: replaces the description of the type in messages and docs.
    """

    doc: str
    result: bool = True
    resume: Resume = "fixed"
    identity: bool | None = None
    expects: str = ""

    @property
    def identifies(self) -> bool:
        """Whether two runs with different values are different runs to `resume=auto`."""
        return self.resume == "fixed" if self.identity is None else self.identity


class Node:
    """Annotation of a part of the configuration that names a class by `_target_`; the class describes its keys."""


class Model(Node):
    """A node with a further key `name`, which tables and folders use."""


class Arguments:
    """Annotation of a part that holds the constructor arguments of one class.

    Args:
        target: dotted name of the class.
    """

    def __init__(self, target: str) -> None:
        self.target = target


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without its `Annotated` metadata, and that metadata."""
    metadata: list[Any] = []
    while hasattr(annotation, "__metadata__"):
        metadata += annotation.__metadata__
        annotation = annotation.__origin__
    return annotation, metadata


def key_of(annotation: Any) -> Key | None:
    """The `Key` in an annotation."""
    return next((item for item in unwrap(annotation)[1] if isinstance(item, Key)), None)


def members(annotation: Any) -> list[Any]:
    """The members of a union; the type itself if it is none."""
    return list(get_args(annotation)) if get_origin(annotation) in (typing.Union, types.UnionType) else [annotation]
