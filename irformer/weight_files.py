"""Files of weights, opened without running any code that stands in them: what is inside, under whatever wrapping."""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from irformer.errors import UserError

RECORD = "irformer"  # under this key a file of ours says what network it holds, in JSON
PICKLED = (".pth", ".pt", ".ckpt")
# What training codes put around a state dict, the averaged weights first: they are what the published numbers are of.
_WRAPPERS = ("params_ema", "params", "state_dict", "model")
_LIGHTNING = "network."  # where our LightningModule holds its network


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
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a run's folder or a file of weights ({', '.join(('.safetensors', *PICKLED))})")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLED:
        return _read_pickled(path)
    raise UserError(f"{path}: expected a run's folder or a file that ends in {', '.join(('.safetensors', *PICKLED))}")


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            content = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or no safetensors file ({error})") from None
    if RECORD in metadata:
        return WeightFile(path, content, "", _parse_record(path, metadata[RECORD]))
    return WeightFile(path, *_unwrap(path, content), None)


def _read_pickled(path: Path) -> WeightFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the format and TorchScript: the errors below say what matters
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise UserError(f"{path}: damaged or no file of weights") from None
        raise UserError(
            f"{path}: refused, since reading it would run code ({wanted[1]}); only weights are read here. Save them alone, "
            "torch.save(network.state_dict(), FILE), or as .safetensors"
        ) from None
    except Exception as error:  # a damaged archive ends in whatever the bytes lead to
        if "TorchScript" in str(error):
            raise UserError(f"{path}: refused, since a TorchScript program runs code; only weights are read here") from None
        reason = (str(error).splitlines() or [""])[0].partition(". This")[0] or type(error).__name__
        raise UserError(f"{path}: damaged or no file of weights: {reason}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected weights by name, found a {type(content).__name__}")
    if RECORD in content:
        weights = {name: value for name, value in content["state_dict"].items() if name.startswith(_LIGHTNING)}
        return WeightFile(path, _without_prefix(weights, _LIGHTNING), "state_dict", _parse_record(path, content[RECORD]))
    if "pytorch-lightning_version" in content and any(name.startswith(_LIGHTNING) for name in content.get("state_dict", {})):
        raise UserError(
            f"{path}: a training checkpoint that does not say which network it holds; give the run's checkpoints/best.safetensors"
        )
    return WeightFile(path, *_unwrap(path, content), None)


def _unwrap(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The weights under whatever wrapping, and the wrapping."""
    top, way = content, []
    while (key := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)) is not None:
        content = content[key]
        way.append(key)
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{path}: holds no weights; expected them by name, bare or under {', '.join(_WRAPPERS)}, found {first_few(top)}")
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


def _parse_record(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
        task_config = record.get("task_config")
        return {
            "model": dict(record["model"]),
            "task": record.get("task"),
            "step": record.get("step"),
            "task_config": None if task_config is None else dict(task_config),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: what it says of its network cannot be read; expected JSON with its configuration under model") from None


def first_few(names: Mapping[str, Any] | list[str]) -> str:
    """The first three of some names, and how many more there are, for a message."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more
