"""Writing a checkpoint for other tools, in the official layout, or as one file of ours."""

from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from timm.layers import DropPath
from torch import nn

from irformer.core.files import write_atomically
from irformer.core.trust import Trust
from irformer.errors import UserError, naming
from irformer.weights.building import build
from irformer.weights.checkpoints import Checkpoint, load_weights, network_record, save_network, save_weights
from irformer.weights.community import CommunityNetwork, community_weights
from irformer.weights.formats import official_weights, our_names, recognise


def export_official(network: nn.Module, path: Path, training_patch_size: int | None = None) -> None:
    """Write a network in the layout of the official code, for the tools that read it.

    Before anything is written, the weights are read back: if a reader would rebuild another network, because the layout does not say all
    (the range of the pixels, the eps of i-LN, ...), the export is refused.

    Args:
        network: a SwinIR, HAT, DRCT or Restormer with a norm of its official code, or a HAT with official i-LN.
        path: .pth holds the weights under params_ema, which BasicSR's networks and SwinIR for real images read, and the same tensors
            under params, which the test scripts of SwinIR, KAIR and Restormer read. .safetensors holds them without a key.
        training_patch_size: size of the attention masks, in pixels; None is the size of the official test scripts (see
            `irformer.weights.formats.official_weights`).

    Raises:
        UserError: the official code has no such network, norm, choice or mask; it is named.
    """
    _require_official_suffix(path)
    weights = official_weights(network, training_patch_size)
    model = recognise(weights)
    assert model is not None, "what is written in the official layout is recognised"
    reread = build({key: value for key, value in model.items() if key != "name"}, Trust(), "network").eval()
    load_weights(reread, our_names(weights), path)
    difference = _difference(network, reread)
    if difference:
        raise UserError(f"the official layout cannot say all that this network is: {difference}; export with --format safetensors")
    if path.suffix == ".pth":
        write_atomically(path, lambda temporary: torch.save({"params": weights, "params_ema": weights}, temporary))
    else:
        write_atomically(path, lambda temporary: safetensors.torch.save_file(weights, temporary))


def _require_official_suffix(path: Path) -> None:
    if path.suffix not in (".pth", ".safetensors"):
        raise UserError(f"{path}: official files end in .pth (under params and params_ema) or .safetensors (without a key)")


def export_checkpoint(
    checkpoint: Checkpoint, path: Path, format: Literal["safetensors", "official"], training_patch_size: int | None = None
) -> None:
    """Write a checkpoint into one file: ours, with the configuration inside, or in the official layout.

    Args:
        checkpoint: the network, and what its file says of it.
        path: the file to write.
        format: `safetensors` or `official`.
        training_patch_size: see `export_official`.

    Raises:
        UserError: the format cannot hold this network, or the file's name does not fit it.
    """
    if format == "official":
        _require_official_suffix(path)
        with naming(f"{checkpoint.path}: "):
            if isinstance(checkpoint.network, CommunityNetwork):
                name = checkpoint.model["name"]
                raise UserError(f"holds {name}, which has no official layout here; SwinIR, HAT, DRCT and Restormer have")
            export_official(checkpoint.network, path, training_patch_size)
        return
    if training_patch_size is not None:
        raise UserError(f"training_patch_size={training_patch_size}: only official files hold masks; leave it out or add --format official")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a file of the format safetensors ends in .safetensors")
    if isinstance(checkpoint.network, CommunityNetwork):
        with naming(f"{checkpoint.path}: "):
            weights = community_weights(checkpoint.network)
        save_weights(path, weights, network_record(checkpoint.model, checkpoint.task, checkpoint.step, {}, checkpoint.task_config))
        return
    save_network(path, checkpoint.network, checkpoint.model, checkpoint.task, checkpoint.step, {}, checkpoint.task_config)


def _difference(network: nn.Module, other: nn.Module) -> str | None:
    """The first thing but weights and drop path in which two networks of the same layout differ, in words."""
    modules = dict(other.named_modules())
    for name, own in network.named_modules():
        if isinstance(own, DropPath):
            continue
        read = modules[name]
        if type(own) is not type(read):
            return f"{name} is {type(own).__name__}, and would be read as {type(read).__name__}"
        for key, value in vars(own).items():
            if isinstance(value, bool | int | float | str) and key != "training" and value != vars(read)[key]:
                return f"{name}.{key} is {value}, and would be read as {vars(read)[key]}".lstrip(".")
        for key, value in own.named_buffers(recurse=False):
            if not torch.equal(value.cpu(), read.get_buffer(key)):
                return f"{name}.{key} is {value.flatten().tolist()[:3]}, and would be read as {read.get_buffer(key).flatten().tolist()[:3]}"
    return None
