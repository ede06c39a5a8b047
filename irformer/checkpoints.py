"""Weights in files. Our own format is safetensors with the whole configuration inside: one file rebuilds the network."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from irformer.config import build_network
from irformer.errors import UserError
from irformer.files import write_atomically

_KEY = "irformer"
# A configuration inside a file names classes; only these may be built, so that a file cannot run code of its choice.
_TRUSTED = ("irformer.models.", "irformer.norms.")
BEST = Path("checkpoints/best.safetensors")
LAST = Path("checkpoints/last.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A network read from a file, in evaluation mode, and what the file says of it.

    Args:
        path: the file.
        network: the network, rebuilt and filled.
        model: the `model` part of its configuration, norm included.
        task: name of the task that it was trained for.
        step: optimizer steps that it was trained for.
    """

    path: Path
    network: nn.Module
    model: dict[str, Any]
    task: str
    step: int


def save_network(path: Path, network: nn.Module, model: dict[str, Any], task: str, step: int, metrics: dict[str, float]) -> None:
    """Write a network as safetensors with its configuration, aside first and then renamed.

    Args:
        path: the file, ending in .safetensors.
        network: its parameters and saved buffers are written.
        model: the `model` part of the configuration, plain values.
        task: name of the task.
        step: optimizer steps so far.
        metrics: of the validation that it was saved for.
    """
    record = json.dumps({"model": model, "task": task, "step": step, "validation": metrics})
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomically(path, lambda aside: safetensors.torch.save_file(weights, aside, metadata={_KEY: record}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild a network from a run's folder or from a file that `save_network` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it is not one of ours.
    """
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        hint = f"the run has not been validated yet, {BEST} is missing" if path.is_dir() else "no such file"
        raise UserError(f"checkpoint={path}: {hint}")
    if file.suffix != ".safetensors":
        raise UserError(f"checkpoint={file}: expected a run's folder or a .safetensors file of irformer (a run's {BEST})")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(f"checkpoint={file}: damaged or no safetensors file ({error})") from None
    if _KEY not in metadata:
        raise UserError(f"checkpoint={file}: holds no configuration of irformer, so that the network it belongs to is not known")
    record = json.loads(metadata[_KEY])
    _require_trusted(file, record["model"])
    network = build_network(record["model"]).eval()
    load_weights(network, weights, file)
    return Checkpoint(file, network, record["model"], record["task"], record["step"])


def load_weights(network: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Fill a network, every parameter of it and with nothing left over.

    Raises:
        UserError: the weights are those of another network; the first differences are named.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    misshapen = [
        f"{name} {list(value.shape)} for {list(own[name].shape)}"
        for name, value in weights.items()
        if name in own and own[name].shape != value.shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    named = [f"{len(names)} {fault} (first: {', '.join(names[:3])})" for fault, names in faults.items() if names]
    if named:
        raise UserError(f"{file} holds {_described(file)}, not those of the {type(network).__name__} as configured: {'; '.join(named)}")
    network.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a run's folder, or of a .safetensors file, without building a network.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"init_from={path}: no such file; expected a run's folder or a .safetensors file")
    try:
        return safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise UserError(f"init_from={file}: damaged or no safetensors file ({error})") from None


def _described(path: Path) -> str:
    """Whose weights a file holds, as far as it says so itself."""
    file = path / BEST if path.is_dir() else path
    with safe_open(file, framework="pt") as opened:
        record = json.loads((opened.metadata() or {}).get(_KEY, "{}"))
    if not record:
        return "the weights of another network"
    return f"the weights of {record['model']['name']}, norm {record['model']['norm']['name']}, {record['task']}"


def _require_trusted(file: Path, node: Any) -> None:
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(_TRUSTED):
            raise UserError(f"checkpoint={file}: wants to build {target}; a file may only name networks and norms of irformer")
        for value in node.values():
            _require_trusted(file, value)
