"""Validation of a configuration against its description: errors name the key, before anything is built."""

import functools
import inspect
import json
import operator
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.schema.keys import Arguments, Key, Node, members, unwrap
from irformer.schema.phrases import describe, show
from irformer.schema.sections import SECTIONS, Benchmark, Model, Train, Trainer
from irformer.schema.targets import locate

ROOTS: dict[str, type] = {"train": Train, "benchmark": Benchmark}

# Hydra's special keys in a node.
_HYDRA_KEYS: dict[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_args_": list,
    "_recursive_": bool,
    "_convert_": typing.Literal["none", "partial", "object", "all"],
}
# Arguments of lightning.Trainer that every run sets itself.
_SET_BY_RUN = (
    "callbacks",
    "check_val_every_n_epoch",
    "default_root_dir",
    "enable_checkpointing",
    "enable_model_summary",
    "logger",
    "num_sanity_val_steps",
    "plugins",
    "use_distributed_sampler",
)
# Types of values that a configuration can contain.
_PLAIN = (bool, int, float, str, NoneType, list, dict, tuple, Path)
_CONTAINERS: dict[Any, Any] = {list: list, tuple: tuple, dict: dict, Sequence: list, Mapping: dict}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def check_config(config: DictConfig, root: str) -> None:
    """Validate a composed configuration.

    Args:
        config: composed from configs/train.yaml or configs/benchmark.yaml.
        root: `train` or `benchmark`.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type or is out of range. The message describes the first error and
            lists the keys of the others.
    """
    # Check literal values before references, so an error is reported at its source.
    raw: Any = OmegaConf.to_container(config, resolve=False)
    report(_check_section(ROOTS[root], "", raw))
    # The task of a benchmark may still be missing: it is that of a checkpoint which has not been read yet.
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=root == "train")
    except InterpolationResolutionError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):  # of a resolver that reads files
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise
    report(_check_section(ROOTS[root], "", resolved))
    if root == "train":
        report(_check_agreement(resolved))


def check_node(path: str, node: Mapping[str, Any]) -> None:
    """Validate a part of a configuration that names a class by `_target_` against the constructor of that class.

    Args:
        path: dotted key of the part, for messages; may be empty.
        node: plain values.

    Raises:
        UserError: as for `check_config`.
    """
    report(_check_node(f"{path}." if path else "", node))


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Validate arguments, given as plain values, against the parameters of a class or function.

    Raises:
        UserError: as for `check_config`.
    """
    report(_check_arguments("", target, arguments, {}))


@dataclass(frozen=True)
class Fault:
    """A wrong key or value, and its description in one line."""

    key: str
    line: str


def report(faults: list[Fault]) -> None:
    """Raise a UserError that describes the first fault and lists the keys of the others."""
    if faults:
        others = ", ".join(dict.fromkeys(fault.key for fault in faults[1:6]))
        more = f" (also wrong: {others}{', ...' if len(faults) > 6 else ''})" if others else ""
        raise UserError(f"{faults[0].line}{more}")


def _check_section(section: type, prefix: str, values: Any) -> list[Fault]:
    """Validate a part that irformer reads itself against the fields of its class."""
    hints = get_type_hints(section, include_extras=True)
    faults = [Fault(f"{prefix}{key}", f"{prefix}{key} is missing: expected {describe(hints[key])}") for key in hints if key not in values]
    for key, value in values.items():
        if key in hints:
            faults += _check(f"{prefix}{key}", value, hints[key])
        elif section is Trainer:
            faults += _check_trainer(prefix, key, value)
        else:
            faults.append(Fault(f"{prefix}{key}", f"unknown key {prefix}{key}{nearest(str(key), list(hints))}"))
    return faults


def _check_trainer(prefix: str, key: str, value: Any) -> list[Fault]:
    """Validate an argument of lightning.Trainer that irformer does not describe."""
    if key in _HYDRA_KEYS:
        return _check(f"{prefix}{key}", value, _HYDRA_KEYS[key])
    from lightning import Trainer as LightningTrainer

    known, _ = parameters(LightningTrainer)
    if key in _SET_BY_RUN:
        return [Fault(f"{prefix}{key}", f"{prefix}{key} cannot be set: every run sets it itself")]
    if key not in known:
        return [Fault(f"{prefix}{key}", f"unknown key {prefix}{key}: lightning.Trainer has no such argument{nearest(key, list(known))}")]
    return _check(f"{prefix}{key}", value, known[key].annotation)


def _check(key: str, value: Any, annotation: Any) -> list[Fault]:
    """Validate one value against its type."""
    kind, metadata = unwrap(annotation)
    options = members(kind)
    wrong = [Fault(key, f"{key}={show(value)}: expected {describe(annotation)}")]
    if isinstance(value, str) and "${" in value:
        return []  # checked when it is resolved
    if value is None and NoneType in options:
        return []
    kinds = [option for option in options if option is not NoneType]
    if len(kinds) == 1:
        only = kinds[0]
        if only in SECTIONS:
            return _check_section(only, f"{key}.", value) if isinstance(value, dict) else wrong
        if only is Arguments:
            target = next(item.target for item in metadata if isinstance(item, Arguments))
            return _check_arguments(f"{key}.", locate(target), value, {}) if isinstance(value, dict) else wrong
        if isinstance(only, type) and issubclass(only, Node):
            if not (isinstance(value, dict) and isinstance(value.get("_target_"), str)):
                return [Fault(key, f"{key}={show(value)}: expected a _target_ class and its arguments")]
            return _check_node(f"{key}.", value, get_type_hints(Model, include_extras=True) if only is Model else {})
        if get_origin(only) is dict and Node in members(get_args(only)[1]):
            if not isinstance(value, dict):
                return wrong
            return [fault for name, part in value.items() for fault in _check(f"{key}.{name}", part, get_args(only)[1])]
    if Node in kinds and not isinstance(value, str):  # a node or text
        return _check(key, value, Node)
    if _plain_type(annotation) is None:  # an object, built by a node
        of_a_class = len(kinds) == 1 and inspect.isclass(kinds[0]) and kinds[0] not in (object, Any)
        return wrong if of_a_class and not isinstance(value, dict) else _nested_nodes(key, value)
    fault = _leaf_fault(value, annotation)
    if fault is None:
        return _nested_nodes(key, value)
    return [Fault(key, f"{key}={show(value)}: {fault}")] if fault else wrong


def _check_node(prefix: str, node: Mapping[str, Any], extra: Mapping[str, Any] = MappingProxyType({})) -> list[Fault]:
    if node["_target_"] == "???":
        return [Fault(f"{prefix}_target_", f"{prefix}_target_ is required: set {prefix}_target_=MODULE.CLASS")]
    try:
        target = locate(str(node["_target_"]))
    except UserError as error:
        return [Fault(f"{prefix}_target_", f"{prefix}{error}")]
    return _check_arguments(prefix, target, node, extra)


def _check_arguments(prefix: str, target: Callable[..., Any], values: Mapping[str, Any], extra: Mapping[str, Any]) -> list[Fault]:
    """Validate arguments against the parameters of a constructor.

    Args:
        prefix: prefix of the keys, for messages.
        target: a class, or a function that builds something.
        values: arguments by name, possibly with Hydra's special keys.
        extra: types of other allowed keys, which are not arguments.
    """
    known, anything = parameters(target)
    faults = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name in extra:
            faults += _check(key, value, extra[name])
        elif name in _HYDRA_KEYS:
            faults += _check(key, value, _HYDRA_KEYS[name])
        elif name in known:
            faults += _check(key, value, known[name].annotation)
        elif anything:
            faults += _nested_nodes(key, value)
        else:
            remedy = nearest(str(name), [*known, *extra]) or f"; '~{key}' removes it"
            takes = ", ".join(known) or "no arguments"
            faults.append(Fault(key, f"unknown key {key}: {target.__qualname__} takes {takes}{remedy}"))
    if not values.get("_partial_") and not values.get("_args_"):
        for name, parameter in known.items():
            if parameter.default is inspect.Parameter.empty and name not in values:
                faults.append(Fault(f"{prefix}{name}", f"{prefix}{name} is missing: expected {describe(parameter.annotation)}"))
    return faults


@functools.cache
def parameters(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters that a class or function accepts by name, with their types, and whether it has `**kwargs`."""
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):
        return {}, True
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # annotations of third-party code may not be evaluable here
        hints = {}
    kinds = inspect.Parameter
    named = {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in signature.parameters.items()
        if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    return named, any(parameter.kind is kinds.VAR_KEYWORD for parameter in signature.parameters.values())


def _nested_nodes(key: str, value: Any) -> list[Fault]:
    """Validate nodes at any depth of a value whose own type cannot be checked, such as the terms of a weighted sum."""
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            return _check_node(f"{key}.", value)
        if set(value) & set(_HYDRA_KEYS):
            return [
                Fault(f"{key}._target_", f"{key}._target_ is missing or not text: expected the name of a class, such as irformer.norms.ILN")
            ]
        return [fault for name, part in value.items() for fault in _nested_nodes(f"{key}.{name}", part)]
    if isinstance(value, list):
        return [fault for i, part in enumerate(value) for fault in _nested_nodes(f"{key}.{i}", part)]
    return []


def _leaf_fault(value: Any, annotation: Any) -> str | None:
    """Return None if a value has the given type; otherwise a description of the error, empty if the type describes it."""
    kind = unwrap(annotation)[0]
    if get_origin(kind) is typing.Literal:  # pydantic would accept true for 1
        return None if any(type(value) is type(known) and value == known for known in get_args(kind)) else ""
    adapter = _adapter(annotation)
    if adapter is None:
        return None
    try:
        # Validate as JSON, where a list represents any sequence, with strict types: "no" is not a boolean and 1.0 not an integer.
        adapter.validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        own = [str(item["ctx"]["error"]) for item in error.errors() if item["type"] == "value_error"]
        return f"expected {own[0]}" if own else ""
    return None


def _adapter(annotation: Any) -> TypeAdapter | None:
    """Return the validator of a type; None for types of objects, which are not plain values."""
    try:
        return _adapter_of(annotation)
    except TypeError:  # metadata that cannot be hashed
        return _adapter_of.__wrapped__(annotation)


@functools.cache
def _adapter_of(annotation: Any) -> TypeAdapter | None:
    plain = _plain_type(annotation)
    if plain is None:
        return None
    try:
        return TypeAdapter(plain, config=_STRICT)
    except (PydanticUserError, SchemaError, NameError, TypeError):
        return None


def _plain_type(annotation: Any) -> Any:
    """Remove the members of a type that a configuration cannot contain, as in `float | Tensor`; return None if nothing is left."""
    kind, metadata = unwrap(annotation)
    options = members(kind)
    if len(options) > 1:
        kept = tuple(plain for option in options if (plain := _plain_type(option)) is not None)
        kind = typing.Union[kept] if kept else None  # noqa: UP007 (built at run time)
    elif get_origin(kind) in _CONTAINERS:
        arguments = tuple(argument if argument is Ellipsis else _plain_type(argument) for argument in get_args(kind))
        kind = None if None in arguments else _CONTAINERS[get_origin(kind)][arguments]
    elif kind not in _PLAIN and get_origin(kind) is not typing.Literal:
        return None
    metadata = [item for item in metadata if not isinstance(item, Key | Arguments)]
    if kind is None or not metadata:
        return kind
    return operator.getitem(Annotated, (kind, *metadata))


def _check_agreement(config: Mapping[str, Any]) -> list[Fault]:
    """Check keys of the network that must equal keys of the task."""
    pairs = {"scale": "scale", "in_channels": "channels"}
    faults = []
    for key, name in pairs.items():
        found, expected = config["model"].get(key), config["task"].get(name)
        if found is not None and expected is not None and found != expected:
            faults.append(Fault(f"model.{key}", f"model.{key}={show(found)}: expected task.{name}={show(expected)}; choose another task"))
    return faults
