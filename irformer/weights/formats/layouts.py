"""Read and write weights in the official layouts.

Supported are SwinIR, HAT, DRCT and Restormer with the norms of their official code, and the HAT of the official i-LN code. Each layout
is a module that defines NAME, CLASS, NORMS, UPSAMPLERS, `matches`, `read` and `extra_buffers`.
"""

import re
from typing import Any

from torch import Tensor, nn

from irformer.errors import UserError
from irformer.norms import ILN
from irformer.weights.formats import official_drct, official_hat, official_restormer, official_swinir
from irformer.weights.formats.official_restormer import from_official, to_official
from irformer.weights.formats.sizes import ModelConfig, Weights

_LAYOUTS: tuple[Any, ...] = (official_hat, official_swinir, official_drct, official_restormer)
# Saved by the official code, although they follow from the sizes.
_DERIVED = re.compile(r"(^|\.)(attn_mask|relative_position_index(_SA|_OCA)?)$|^mean$")


def our_names(weights: Weights) -> dict[str, Tensor]:
    """Rename official weights to irformer's names and drop derived buffers.

    Official Restormer nests the parameters of its norms in `body`, and official i-LN calls weight and bias gamma and beta.
    """
    renamed = {}
    for name, value in from_official(weights).items():
        stem, _, last = name.rpartition(".")
        if last in ("gamma", "beta") and f"{stem}.gamma" in weights and f"{stem}.beta" in weights and f"{stem}.weight" not in weights:
            name = f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
        if not _DERIVED.search(name):
            renamed[name] = value
    return renamed


def recognize(weights: Weights) -> ModelConfig | None:
    """Return the configuration of the network that official weights belong to; None if irformer has no such network.

    Args:
        weights: tensors by their official names.

    Returns:
        The `model` part of a configuration, including the norm. Settings that the weights do not determine have their official value:
        pixel_range is 255 for SwinIR with window 7 and without an upsampler (the JPEG networks) and 1 for all others, conv_scale is
        0.01, and i-LN has eps 1e-4, affine ends and a standardized input.

    LayerNorm and i-LN are distinguished only by the official parameter names: a bare state dict of irformer, which uses weight and bias
    for both, is read as LayerNorm. Files that irformer writes describe their network and are not recognized this way.

    Raises:
        UserError: the names are those of a known network, but its sizes cannot be determined.
    """
    layout = next((layout for layout in _LAYOUTS if layout.matches(weights)), None)
    if layout is None:
        return None
    try:
        return layout.read(weights)
    except KeyError as error:
        raise UserError(f"its names are those of {layout.NAME} weights, but {error.args[0]} is missing") from None
    except (IndexError, ZeroDivisionError, ValueError, TypeError, OverflowError):
        raise UserError(f"its names are those of {layout.NAME} weights, but their shapes do not fit such a network") from None


def describe(model: ModelConfig) -> str:
    """Describe a network in one line, from its configuration."""
    words = {"scale": "scale", "in_channels": "channels", "embed_dim": "features", "dim": "features", "depths": "depths"}
    words |= {"num_blocks": "blocks", "num_heads": "heads", "heads": "heads", "window_size": "window", "upsampler": "upsampler"}
    sizes = [f"{word} {_listed(model[key])}" for key, word in words.items() if model.get(key, "") != ""]
    return f"{model['name']}, norm {model['norm']['name']}, {', '.join(sizes)}"


def _listed(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def official_weights(network: nn.Module, training_patch_size: int | None = None) -> dict[str, Tensor]:
    """Return a network's weights in the official layout: official names, with the derived buffers that strict loading requires.

    The official SwinIR and DRCT save the attention mask of each shifted block, for square images of the size of a training patch. The
    default is the size for which the task's official test script builds its network: 64 pixels for super-resolution, 128 for denoising
    and 126 for JPEG artifacts (window 7).

    Args:
        network: a SwinIR, HAT, DRCT or Restormer.
        training_patch_size: a different size of the masks in pixels: 48 for the classical SwinIR networks that were trained on patches
            of 48. A multiple of the window, from two windows to 1024.

    Returns:
        Tensors by name.

    Raises:
        UserError: the official code does not have this network, its norm, or masks of this size.
    """
    layout = next((layout for layout in _LAYOUTS if type(network) is layout.CLASS), None)
    if layout is None:
        raise UserError(f"no official layout for {type(network).__name__}; expected SwinIR, HAT, DRCT or Restormer")
    kind = layout.CLASS.__name__
    norm = next(module for name, module in network.named_modules() if name.endswith("norm1"))
    if type(norm) not in layout.NORMS:
        offered = " and ".join(known.__name__ for known in layout.NORMS)
        raise UserError(f"the official {kind} has no {type(norm).__name__}, only {offered}; export with --format safetensors")
    if layout.UPSAMPLERS is not None and network.upsampler not in layout.UPSAMPLERS:
        raise UserError(f"the official {kind} has no upsampler {network.upsampler!r}, only {', '.join(layout.UPSAMPLERS)}")
    if training_patch_size is not None and layout not in (official_swinir, official_drct):
        raise UserError(f"training_patch_size={training_patch_size}: official weights of {kind} contain no masks; omit it")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if layout is official_restormer:
        weights = to_official(weights)
    if isinstance(norm, ILN):
        weights = {re.sub(r"(\bnorm[12]?)\.weight$", r"\1.gamma", name): value for name, value in weights.items()}
        weights = {re.sub(r"(\bnorm[12]?)\.bias$", r"\1.beta", name): value for name, value in weights.items()}
    return weights | layout.extra_buffers(network, training_patch_size)
