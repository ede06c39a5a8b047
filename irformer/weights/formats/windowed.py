"""The common parts of the official layouts of SwinIR, HAT and DRCT."""

import math
import re

import torch
from torch import Tensor

from irformer.errors import UserError
from irformer.models.frame import WindowTransformer
from irformer.models.windows import SwinBlock, relative_positions, shifted_window_masks
from irformer.weights.formats.sizes import ModelConfig, Weights, norm

# The patch sizes (`img_size`) for which the official test scripts build SwinIR, and the BasicSR configurations DRCT. Networks without an
# upsampler remove noise or JPEG artifacts and use 128, or 126 with the 7-pixel window of the JPEG networks.
_UPSAMPLING_PATCH, _RESTORATION_PATCH, _MAX_PATCH = 64, 128, 1024


def read_frame(name: str, kind: str, weights: Weights, block: str) -> ModelConfig:
    """Return the part of a configuration that all three share.

    Args:
        name: name of the network in a configuration.
        kind: name of its class.
        weights: weights in the official layout.
        block: name of the first block.
    """
    embed_dim, in_channels = weights["conv_first.weight"].shape[:2]
    scale, upsampler = read_upsampler(weights, in_channels)
    span = math.isqrt(len(weights[f"{block}.attn.relative_position_bias_table"]))  # 2 * window - 1 offsets along each axis
    closing = {"conv_after_body.weight": "1conv", "conv_after_body.0.weight": "3conv"}
    return {
        "name": name,
        "_target_": f"irformer.models.{kind}",
        "norm": norm("iln" if f"{block}.norm1.beta" in weights else "ln"),
        "scale": scale,
        "in_channels": in_channels,
        "embed_dim": embed_dim,
        "window_size": (span + 1) // 2,
        "upsampler": upsampler,
        "resi_connection": next((kind for key, kind in closing.items() if key in weights), "identity"),
        "pixel_range": 1.0,
        "qkv_bias": f"{block}.attn.qkv.bias" in weights,
        "drop_path_rate": 0.1,
    }


def read_upsampler(weights: Weights, in_channels: int) -> tuple[int, str]:
    """Return scale and upsampler."""
    if "conv_up1.weight" in weights:
        return (4 if "conv_up2.weight" in weights else 2), "nearest+conv"
    convolutions = [name for name in weights if re.fullmatch(r"upsample\.\d+\.weight", name)]
    if "conv_before_upsample.0.weight" in weights:
        features = len(weights["conv_before_upsample.0.weight"])
        each = [math.isqrt(len(weights[name]) // features) for name in convolutions]
        return math.prod(each), "pixelshuffle"
    if convolutions:
        return math.isqrt(len(weights["upsample.0.weight"]) // in_channels), "pixelshuffledirect"
    return 1, ""


def has_unknown_parts(weights: Weights) -> bool:
    """Return whether the weights are of a variant that only the official code supports; no published network is one."""
    before = weights.get("conv_before_upsample.0.weight")
    return (
        "absolute_pos_embed" in weights
        or "conv_up3.weight" in weights
        or not any(f"patch_embed.norm.{name}" in weights for name in ("weight", "gamma"))
        or (before is not None and len(before) != 64)
    )


def masks_and_positions(network: WindowTransformer, training_patch_size: int | None) -> dict[str, Tensor]:
    """Return the position indices and shift masks that the official SwinIR and DRCT save with their weights."""
    window = network.window_size
    index = relative_positions(window)
    mask = official_mask(patch_size(network, training_patch_size) // window, window)
    buffers = {}
    for name, block in network.named_modules():
        if isinstance(block, SwinBlock):
            # Copies: reading refuses a file whose tensors share memory.
            buffers[f"{name}.attn.relative_position_index"] = index.clone()
            if block.shift > 0:
                buffers[f"{name}.attn_mask"] = mask.clone()
    return buffers


def patch_size(network: WindowTransformer, chosen: int | None) -> int:
    """Return the size of the masks: the chosen one, or the official one.

    The minimum is two windows: an official network built for a single window disables shifting and is a different network.
    """
    window = network.window_size
    if chosen is None:
        official = _UPSAMPLING_PATCH if network.upsampler else _RESTORATION_PATCH
        return max(official // window, 2) * window
    if chosen % window or not 2 * window <= chosen <= _MAX_PATCH:
        raise UserError(f"training_patch_size={chosen}: expected a multiple of the window, {window}, from {2 * window} to {_MAX_PATCH}")
    return chosen


def official_mask(windows: int, window: int) -> Tensor:
    """Return the mask that official code saves for a square image of windows x windows windows: [windows^2, n, n], 0 or -100."""
    right, bottom, corner = torch.zeros(3, window**2, window**2).masked_fill(shifted_window_masks(window, window // 2), -100.0)
    mask = torch.zeros(windows, windows, window**2, window**2)
    mask[:-1, -1], mask[-1, :-1], mask[-1, -1] = right, bottom, corner
    return mask.flatten(0, 1)
