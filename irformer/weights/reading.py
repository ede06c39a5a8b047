"""Read the weights in a file, at any nesting, without running code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.weights.pickles import read_pickled, require_file
from irformer.weights.records import parse_record

RECORD = "irformer"  # the key of the JSON description of the network, in files that irformer writes
PICKLED = (".pth", ".pt", ".ckpt")
SUFFIXES = ", ".join((".safetensors", *PICKLED))
# Keys under which training code stores a state dict. Averaged weights come first, because published results use them.
_WRAPPERS = ("params_ema", "params", "state_dict", "model")
_LIGHTNING = "network."  # prefix of the network in our LightningModule
_MAX_NESTING = 8
_MAX_HEADER = 2**24  # bytes, of a .safetensors file; the largest published networks need a thousandth of that


@dataclass(frozen=True)
class WeightFile:
    """The weights in a file and the file's description of them.

    Args:
        path: the file.
        weights: tensors by name, without wrapping keys and prefixes.
        wrapping: the keys under which the weights were nested, or empty.
        record: the description in files that irformer writes: `model` (the configuration of the network), `task`, `step` and
            `task_config` (the `task` part of the configuration, or None if it is missing); None in all other files.
    """

    path: Path
    weights: dict[str, Tensor]
    wrapping: str
    record: dict[str, Any] | None


def read_weight_file(path: Path) -> WeightFile:
    """Read a .safetensors, .pth, .pt or .ckpt file.

    The weights may be at the top level or under params_ema (preferred over all others), params, state_dict or model, with or without the
    prefix `module.`. In .safetensors files the names may have the prefix `params_ema.` or `params.`.

    Raises:
        UserError: the file is missing, damaged, contains no weights, or would run code when read.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        require_file(path, f"a run's folder or a weights file ({SUFFIXES})")
        raise UserError(f"{path}: expected a run's folder or a file ending in {SUFFIXES}")
    require_file(path, f"a run's folder or a weights file ({SUFFIXES})")
    try:
        file = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
        _require_numbers(file)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return file


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise a UserError that names the first tensors with NaN or infinite values, if there are any."""
    suspects = {name: bad for name, value in weights.items() if value.is_floating_point() and (bad := _not_finite(value))}
    if suspects:
        listed = list(suspects.items())[:3]
        named = ", ".join(f"{shortened(name)}: {bad} of {weights[name].numel()} values are not finite" for name, bad in listed)
        more = f", and {len(suspects) - 3} more tensors" if len(suspects) > 3 else ""
        raise UserError(f"{named}{more}; such weights cannot restore an image, use an earlier checkpoint")


def _not_finite(value: Tensor) -> int:
    wide = value.float() if value.itemsize == 1 else value  # PyTorch does not compute with 1-byte types
    return value.numel() - int(torch.isfinite(wide).sum())


def _require_numbers(file: WeightFile) -> None:
    """Refuse anything but dense tensors in memory, and tensors that take far more memory than the size of the file."""
    for name, value in file.weights.items():
        kind = _unusual(value)
        if kind is not None:
            raise UserError(f"{shortened(name)}: {kind}; expected a dense tensor of numbers")
    total, size = sum(value.numel() * value.itemsize for value in file.weights.values()), file.path.stat().st_size
    if total > 2 * size:
        raise UserError(f"its weights take {total:,} bytes, but the file has {size:,}; expected the file to contain every weight")


def _unusual(value: Tensor) -> str | None:
    """Describe how a tensor differs from a dense one in memory; None if it does not."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"a {type(value).__name__}"
    if value.is_nested or value.layout != torch.strided:
        return f"a nested or sparse tensor ({value.layout})"
    if value.is_quantized:
        return f"a quantized tensor ({value.dtype})"
    if value.device.type != "cpu":
        return f"a tensor without values (device {value.device})"
    if value.is_complex():
        return f"complex numbers ({value.dtype})"
    return None


def _read_safetensors(path: Path) -> WeightFile:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > _MAX_HEADER:
        raise UserError(f"damaged or not a safetensors file: a header of {header:,} bytes; expected at most {_MAX_HEADER:,}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            content = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors and PyTorch raise various errors
        raise UserError(f"damaged or not a safetensors file ({shortened(str(error), 200)})") from None
    if RECORD in metadata:
        return WeightFile(path, content, "", parse_record(metadata[RECORD]))
    return WeightFile(path, *_unwrap(content), None)


def _read_pickled(path: Path) -> WeightFile:
    content = read_pickled(path)
    if not isinstance(content, Mapping):
        raise UserError(f"expected weights by name, found a {type(content).__name__}")
    if RECORD in content:
        state = content.get("state_dict")
        if not isinstance(state, Mapping):
            raise UserError(f"state_dict={shortened(state)}: expected weights by name")
        weights = {name: value for name, value in _named_tensors(state).items() if name.startswith(_LIGHTNING)}
        return WeightFile(path, _without_prefix(weights, _LIGHTNING), "state_dict", parse_record(content[RECORD]))
    state = content.get("state_dict")
    if "pytorch-lightning_version" in content and isinstance(state, Mapping) and any(str(name).startswith(_LIGHTNING) for name in state):
        raise UserError("a training checkpoint without a description of its network; use the run's checkpoints/best.safetensors")
    return WeightFile(path, *_unwrap(content), None)


def _unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Return the weights without their wrapping, and the wrapping."""
    top, keys = content, []
    while (key := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)) is not None:
        content = content[key]
        keys.append(key)
        if len(keys) > _MAX_NESTING:
            raise UserError(f"its weights are nested under more than {_MAX_NESTING} keys ({', '.join(keys[:3])}, ...); expected one or two")
    if not any(isinstance(value, Tensor) for value in content.values()):
        known = ", ".join(_WRAPPERS)
        raise UserError(f"contains no weights; expected tensors by name, at the top level or under {known}, found {first_few(top)}")
    weights = _named_tensors(content)
    for key in ("params_ema", "params"):
        inside = {name: value for name, value in weights.items() if name.startswith(f"{key}.")}
        if inside:
            weights = _without_prefix(inside, f"{key}.")
            keys.append(key)
            break
    if all(name.startswith("module.") for name in weights):
        weights = _without_prefix(weights, "module.")
    return weights, ".".join(keys)


def _without_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _named_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Check that all names are strings and all values tensors: dropping any of them would lose it silently."""
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"the name of a weight is of type {type(name).__name__} ({shortened(name)}); expected a string")
        if not isinstance(value, Tensor):
            raise UserError(f"{shortened(name)}: a {type(value).__name__} among the weights; expected a tensor")
    return dict(content)


def first_few(names: Mapping[str, Any] | list[str]) -> str:
    """Format the first three names and the number of the others, for a message."""
    listed = [shortened(name) for name in names]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more
