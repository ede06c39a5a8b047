"""Files of weights, opened without running any code that stands in them: what is inside, under whatever wrapping."""

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

RECORD = "irformer"  # under this key a file of ours says what network it holds, in JSON
PICKLED = (".pth", ".pt", ".ckpt")
SUFFIXES = ", ".join((".safetensors", *PICKLED))
# What training codes put around a state dict, the averaged weights first: they are what the published numbers are of.
_WRAPPERS = ("params_ema", "params", "state_dict", "model")
_LIGHTNING = "network."  # where our LightningModule holds its network
_DEEPEST_WRAPPING = 8
_HEADER = 2**24  # bytes before the weights of a .safetensors file; those of the largest published networks are a thousandth of it


@dataclass(frozen=True)
class WeightFile:
    """The weights in a file, and what the file says of them.

    Args:
        path: the file.
        weights: by the names that they have inside, wrapping taken off.
        wrapping: the keys that the weights lay under, or empty.
        record: what a file of ours says: `model`, the configuration of the network, `task`, `step` and `task_config` (the `task` part
            of the configuration, None in files that do not carry it); None in all other files.
    """

    path: Path
    weights: dict[str, Tensor]
    wrapping: str
    record: dict[str, Any] | None


def read_weight_file(path: Path) -> WeightFile:
    """Read a .safetensors, .pth, .pt or .ckpt file.

    The weights may lie bare, or under params_ema (taken before all others), params, state_dict or model, with or without the prefix
    `module.`; in .safetensors `params_ema.` and `params.` may stand before the names.

    Raises:
        UserError: there is no such file, it is damaged, holds no weights, or would run code when it is read.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        require_file(path, f"a run's folder or a file of weights ({SUFFIXES})")
        raise UserError(f"{path}: expected a run's folder or a file that ends in {SUFFIXES}")
    require_file(path, f"a run's folder or a file of weights ({SUFFIXES})")
    try:
        file = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
        _require_numbers(file)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return file


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise a UserError that names the first weights with NaN or infinity in them."""
    suspects = {name: bad for name, value in weights.items() if value.is_floating_point() and (bad := _not_finite(value))}
    if suspects:
        listed = list(suspects.items())[:3]
        told = ", ".join(f"{shortened(name)}: {bad} of {weights[name].numel()} values are not finite" for name, bad in listed)
        more = f", and {len(suspects) - 3} more tensors" if len(suspects) > 3 else ""
        raise UserError(f"{told}{more}; a network with such weights restores nothing, give an earlier checkpoint")


def _not_finite(value: Tensor) -> int:
    wide = value.float() if value.itemsize == 1 else value  # of the types of one byte PyTorch computes nothing
    return value.numel() - int(torch.isfinite(wide).sum())


def _require_numbers(file: WeightFile) -> None:
    """Refuse what is no plain tensor in memory, and tensors that take far more memory than the file has bytes."""
    for name, value in file.weights.items():
        kind = _unusual(value)
        if kind is not None:
            raise UserError(f"{shortened(name)}: {kind}; expected a dense tensor of numbers")
    total, size = sum(value.numel() * value.itemsize for value in file.weights.values()), file.path.stat().st_size
    if total > 2 * size:
        raise UserError(f"its weights take {total:,} bytes, and the file has {size:,}; expected every weight to stand in the file")


def _unusual(value: Tensor) -> str | None:
    """What sets a tensor apart from a plain one in memory, or None."""
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
    if header > _HEADER:
        raise UserError(f"damaged or no safetensors file: a header of {header:,} bytes; expected at most {_HEADER:,}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            content = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors and PyTorch have errors of their own
        raise UserError(f"damaged or no safetensors file ({shortened(str(error), 200)})") from None
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
        raise UserError("a training checkpoint that does not say which network it holds; give the run's checkpoints/best.safetensors")
    return WeightFile(path, *_unwrap(content), None)


def _unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The weights under whatever wrapping, and the wrapping."""
    top, way = content, []
    while (key := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)) is not None:
        content = content[key]
        way.append(key)
        if len(way) > _DEEPEST_WRAPPING:
            raise UserError(f"its weights lie under more than {_DEEPEST_WRAPPING} keys ({', '.join(way[:3])}, ...); expected one or two")
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"holds no weights; expected them by name, bare or under {', '.join(_WRAPPERS)}, found {first_few(top)}")
    weights = _named_tensors(content)
    for key in ("params_ema", "params"):
        inside = {name: value for name, value in weights.items() if name.startswith(f"{key}.")}
        if inside:
            weights = _without_prefix(inside, f"{key}.")
            way.append(key)
            break
    if all(name.startswith("module.") for name in weights):
        weights = _without_prefix(weights, "module.")
    return weights, ".".join(way)


def _without_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _named_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Weights by name; a value of another kind is refused, since leaving it out would lose it silently."""
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"a weight is named by a {type(name).__name__} ({shortened(name)}); expected text")
        if not isinstance(value, Tensor):
            raise UserError(f"{shortened(name)}: a {type(value).__name__} among the weights; expected a tensor")
    return dict(content)


def first_few(names: Mapping[str, Any] | list[str]) -> str:
    """The first three of some names, and how many more there are, for a message."""
    listed = [shortened(name) for name in names]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more
