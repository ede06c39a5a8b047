"""Export a checkpoint, in the official layout or as a single file of irformer's own format."""

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
from irformer.weights.formats import official_weights, our_names, recognize


def export_official(network: nn.Module, path: Path, training_patch_size: int | None = None) -> None:
    """Write a network in the layout of the official code, for tools that read it.

    The weights are converted back before anything is written. The export is refused if a reader would rebuild a different network,
    because the layout does not contain all of its settings (the pixel range, the eps of i-LN, ...).

    Args:
        network: a SwinIR, HAT, DRCT or Restormer with a norm of its official code, or a HAT with official i-LN.
        path: a .pth file stores the weights under params_ema, which BasicSR's networks and SwinIR for real images read, and the same
            tensors under params, which the test scripts of SwinIR, KAIR and Restormer read. A .safetensors file stores them without a key.
        training_patch_size: size of the attention masks in pixels; None selects the size in the official test scripts (see
            `irformer.weights.formats.official_weights`).

    Raises:
        UserError: the official code has no such network, norm, setting or mask; the message names it.
    """
    _require_official_suffix(path)
    weights = official_weights(network, training_patch_size)
    model = recognize(weights)
    assert model is not None, "weights in the official layout are recognized"
    reread = build({key: value for key, value in model.items() if key != "name"}, Trust(), "network").eval()
    load_weights(reread, our_names(weights), path)
    difference = _difference(network, reread)
    if difference:
        raise UserError(f"the official layout cannot represent this network: {difference}; export with --format safetensors")
    if path.suffix == ".pth":
        write_atomically(path, lambda temporary: torch.save({"params": weights, "params_ema": weights}, temporary))
    else:
        write_atomically(path, lambda temporary: safetensors.torch.save_file(weights, temporary))


def _require_official_suffix(path: Path) -> None:
    if path.suffix not in (".pth", ".safetensors"):
        raise UserError(f"{path}: expected a file name ending in .pth (under params and params_ema) or .safetensors (without a key)")


def export_checkpoint(
    checkpoint: Checkpoint, path: Path, format: Literal["safetensors", "official"], training_patch_size: int | None = None
) -> None:
    """Write a checkpoint to a single file, in irformer's own format with the configuration inside or in the official layout.

    Args:
        checkpoint: the network and its metadata.
        path: the file to write.
        format: `safetensors` or `official`.
        training_patch_size: see `export_official`.

    Raises:
        UserError: the format cannot represent this network, or does not match the suffix of the file.
    """
    if format == "official":
        _require_official_suffix(path)
        with naming(f"{checkpoint.path}: "):
            if isinstance(checkpoint.network, CommunityNetwork):
                name = checkpoint.model["name"]
                raise UserError(f"contains {name}; expected SwinIR, HAT, DRCT or Restormer, the only networks with an official layout here")
            export_official(checkpoint.network, path, training_patch_size)
        return
    if training_patch_size is not None:
        raise UserError(f"training_patch_size={training_patch_size}: only official files contain masks; omit it or add --format official")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: expected a file name ending in .safetensors, or --format official")
    if isinstance(checkpoint.network, CommunityNetwork):
        with naming(f"{checkpoint.path}: "):
            weights = community_weights(checkpoint.network)
        save_weights(path, weights, network_record(checkpoint.model, checkpoint.task, checkpoint.step, {}, checkpoint.task_config))
        return
    save_network(path, checkpoint.network, checkpoint.model, checkpoint.task, checkpoint.step, {}, checkpoint.task_config)


def _difference(network: nn.Module, other: nn.Module) -> str | None:
    """Describe the first difference, other than weights and drop path, between two networks of the same layout."""
    modules = dict(other.named_modules())
    for name, own in network.named_modules():
        if isinstance(own, DropPath):
            continue
        read = modules[name]
        if type(own) is not type(read):
            return f"{name} is {type(own).__name__}, but would be read as {type(read).__name__}"
        for key, value in vars(own).items():
            if isinstance(value, bool | int | float | str) and key != "training" and value != vars(read)[key]:
                return f"{name}.{key} is {value}, but would be read as {vars(read)[key]}".lstrip(".")
        for key, value in own.named_buffers(recurse=False):
            if not torch.equal(value.cpu(), read.get_buffer(key)):
                return f"{name}.{key} is {value.flatten().tolist()[:3]}, but would be read as {read.get_buffer(key).flatten().tolist()[:3]}"
    return None
