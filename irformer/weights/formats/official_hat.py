"""The official layout of HAT, and of the HAT of the official i-LN code."""

import math

from torch import Tensor

from irformer.models import HAT
from irformer.models.hat import OverlappingCrossAttention, overlapping_positions
from irformer.models.windows import relative_positions
from irformer.norms import ILN, LayerNorm
from irformer.weights.formats.sizes import ModelConfig, Weights, count, heads, ratio
from irformer.weights.formats.windowed import has_unknown_parts, read_frame

NAME = "hat"
CLASS = HAT
NORMS = (LayerNorm, ILN)
UPSAMPLERS: tuple[str, ...] | None = ("pixelshuffle",)

_BLOCK = "layers.0.residual_group.blocks.0"


def matches(weights: Weights) -> bool:
    """Return whether the names of the weights are those of this layout."""
    return all(mark in weights for mark in ("conv_first.weight", f"{_BLOCK}.attn.qkv.weight", f"{_BLOCK}.conv_block.cab.0.weight"))


def read(weights: Weights) -> ModelConfig | None:
    """Return the configuration of the network with these weights; None for a variant that irformer does not have."""
    if has_unknown_parts(weights):
        return None
    model = read_frame(NAME, "HAT", weights, _BLOCK)
    groups, width, window = count(weights, "layers."), model["embed_dim"], model["window_size"]
    model["depths"] = [count(weights, f"layers.{i}.residual_group.blocks.") for i in range(groups)]
    model["num_heads"] = [heads(weights, f"layers.{i}.residual_group.blocks.0") for i in range(groups)]
    model["mlp_ratio"] = ratio([(width, len(weights[f"{_BLOCK}.mlp.fc1.weight"]))], 2.0)
    model["compress_ratio"] = width // len(weights[f"{_BLOCK}.conv_block.cab.0.weight"])
    model["squeeze_factor"] = width // len(weights[f"{_BLOCK}.conv_block.cab.3.attention.1.weight"])
    model["conv_scale"] = 0.01
    # The table has a row for each offset between a window and the larger one around it: (window + larger - 1)^2.
    span = math.isqrt(len(weights["layers.0.residual_group.overlap_attn.relative_position_bias_table"]))
    model["overlap_ratio"] = ratio([(window, span + 1 - 2 * window)], 0.5)
    return model


def extra_buffers(network: HAT, training_patch_size: int | None) -> dict[str, Tensor]:
    """Return the buffers that strict loading requires in addition to the weights: position indices."""
    assert training_patch_size is None
    window = network.window_size
    larger = next(module.overlap_window for module in network.modules() if isinstance(module, OverlappingCrossAttention))
    span = window + larger - 1
    # The official offsets start at 2 - larger; those here are the same modulo the table's length.
    lowest = (span + 1) * (2 - larger)
    overlapping = (overlapping_positions(window, larger) - lowest) % span**2 + lowest
    return {"relative_position_index_SA": relative_positions(window), "relative_position_index_OCA": overlapping}
