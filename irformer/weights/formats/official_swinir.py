"""The official layout of SwinIR."""

from torch import Tensor

from irformer.models import SwinIR
from irformer.norms import LayerNorm
from irformer.weights.formats.sizes import ModelConfig, Weights, count, heads, ratio
from irformer.weights.formats.windowed import has_unknown_parts, masks_and_positions, read_frame

NAME = "swinir"
CLASS = SwinIR
NORMS = (LayerNorm,)
UPSAMPLERS: tuple[str, ...] | None = None

_BLOCK = "layers.0.residual_group.blocks.0"


def matches(weights: Weights) -> bool:
    """Return whether the names of the weights are those of this layout."""
    marks = ("conv_first.weight", f"{_BLOCK}.attn.qkv.weight", f"{_BLOCK}.attn.relative_position_bias_table")
    return all(mark in weights for mark in marks) and f"{_BLOCK}.conv_block.cab.0.weight" not in weights


def read(weights: Weights) -> ModelConfig | None:
    """Return the configuration of the network with these weights; None for a variant that irformer does not have."""
    if has_unknown_parts(weights):
        return None
    model = read_frame(NAME, "SwinIR", weights, _BLOCK)
    groups, width = count(weights, "layers."), model["embed_dim"]
    model["depths"] = [count(weights, f"layers.{i}.residual_group.blocks.") for i in range(groups)]
    model["num_heads"] = [heads(weights, f"layers.{i}.residual_group.blocks.0") for i in range(groups)]
    model["mlp_ratio"] = ratio([(width, len(weights[f"{_BLOCK}.mlp.fc1.weight"]))], 2.0)
    if model["window_size"] == 7 and model["upsampler"] == "":
        model["pixel_range"] = 255.0
    return model if model["norm"]["name"] == "ln" else None


def extra_buffers(network: SwinIR, training_patch_size: int | None) -> dict[str, Tensor]:
    """Return the buffers that strict loading requires in addition to the weights."""
    return masks_and_positions(network, training_patch_size)
