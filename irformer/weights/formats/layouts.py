"""Reading and writing weights in the official layouts.

Read and written are SwinIR, HAT, DRCT and Restormer with the norms of their official codes, and the HAT of the official i-LN code. Each
layout is a module with the same names: NAME, CLASS, NORMS, UPSAMPLERS, `matches`, `read` and `extra_buffers`.
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
# Saved by the official codes, although they follow from the sizes.
_DERIVED = re.compile(r"(^|\.)(attn_mask|relative_position_index(_SA|_OCA)?)$|^mean$")


def our_names(weights: Weights) -> dict[str, Tensor]:
    """Official weights under the names of the networks here, derived buffers left out.

    Restormer's norms hold theirs in `body`, and official i-LN calls weight and bias gamma and beta.
    """
    renamed = {}
    for name, value in from_official(weights).items():
        stem, _, last = name.rpartition(".")
        if last in ("gamma", "beta") and f"{stem}.gamma" in weights and f"{stem}.beta" in weights and f"{stem}.weight" not in weights:
            name = f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
        if not _DERIVED.search(name):
            renamed[name] = value
    return renamed


def recognise(weights: Weights) -> ModelConfig | None:
    """The configuration of the network whose official weights these are; None if they are of no network here.

    Args:
        weights: by their official names.

    Returns:
        The `model` part of a configuration, norm included. What weights do not say has its official value: pixel_range is 255 for
        SwinIR with window 7 and without an upsampler (the JPEG networks) and 1 for all others, conv_scale is 0.01, and i-LN has eps
        1e-4, affine ends and a standardized input.

    LayerNorm and i-LN are told apart by the names of the official codes alone: a bare state dict of a network here, which calls both weight
    and bias, reads as LayerNorm. Files that irformer writes describe their network, and never come here.

    Raises:
        UserError: they are named as those of a network here, but lack what its sizes are read from.
    """
    layout = next((layout for layout in _LAYOUTS if layout.matches(weights)), None)
    if layout is None:
        return None
    try:
        return layout.read(weights)
    except KeyError as error:
        raise UserError(f"named as weights of {layout.NAME}, but {error.args[0]} is missing") from None
    except (IndexError, ZeroDivisionError, ValueError, TypeError, OverflowError):
        raise UserError(f"named as weights of {layout.NAME}, but of shapes that its sizes cannot be read from") from None


def describe(model: ModelConfig) -> str:
    """A network in a few words, from its configuration: what was recognised."""
    words = {"scale": "scale", "in_channels": "channels", "embed_dim": "features", "dim": "features", "depths": "depths"}
    words |= {"num_blocks": "blocks", "num_heads": "heads", "heads": "heads", "window_size": "window", "upsampler": "upsampler"}
    sizes = [f"{word} {_listed(model[key])}" for key, word in words.items() if model.get(key, "") != ""]
    return f"{model['name']}, norm {model['norm']['name']}, {', '.join(sizes)}"


def _listed(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def official_weights(network: nn.Module, training_patch_size: int | None = None) -> dict[str, Tensor]:
    """The weights of a network in the official layout: official names, and the derived buffers that official codes load strictly.

    The official SwinIR and DRCT save the attention mask of every shifted block, for square images of the size of a training patch. It is
    written for the size for which the official test script of the task builds its network: 64 pixels for super-resolution, 128 for
    denoising and 126 for JPEG artifacts (window 7).

    Args:
        network: a SwinIR, HAT, DRCT or Restormer.
        training_patch_size: another size of the masks, in pixels: 48 for the half of the classical SwinIR networks that was trained on
            patches of 48. A multiple of the window, from two windows to 1024.

    Returns:
        Tensors by name.

    Raises:
        UserError: the official code has no such network or not its norm, or no masks of this size.
    """
    layout = next((layout for layout in _LAYOUTS if type(network) is layout.CLASS), None)
    if layout is None:
        raise UserError(f"{type(network).__name__} has no official layout here; SwinIR, HAT, DRCT and Restormer have")
    kind = layout.CLASS.__name__
    norm = next(module for name, module in network.named_modules() if name.endswith("norm1"))
    if type(norm) not in layout.NORMS:
        offered = " and ".join(known.__name__ for known in layout.NORMS)
        raise UserError(f"the official {kind} has no {type(norm).__name__}, only {offered}; export with --format safetensors")
    if layout.UPSAMPLERS is not None and network.upsampler not in layout.UPSAMPLERS:
        raise UserError(f"the official {kind} has no upsampler {network.upsampler!r}, only {', '.join(layout.UPSAMPLERS)}")
    if training_patch_size is not None and layout not in (official_swinir, official_drct):
        raise UserError(f"training_patch_size={training_patch_size}: official weights of {kind} hold no masks; leave it out")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if layout is official_restormer:
        weights = to_official(weights)
    if isinstance(norm, ILN):
        weights = {re.sub(r"(\bnorm[12]?)\.weight$", r"\1.gamma", name): value for name, value in weights.items()}
        weights = {re.sub(r"(\bnorm[12]?)\.bias$", r"\1.beta", name): value for name, value in weights.items()}
    return weights | layout.extra_buffers(network, training_patch_size)
