"""The official layout of DRCT."""

from torch import Tensor

from irformer.models import DRCT
from irformer.norms import LayerNorm
from irformer.weights.formats.sizes import ModelConfig, Weights, count, heads, ratio
from irformer.weights.formats.windowed import has_unknown_parts, masks_and_positions, read_frame

NAME = "drct"
CLASS = DRCT
NORMS = (LayerNorm,)
UPSAMPLERS: tuple[str, ...] | None = ("pixelshuffle",)

_BLOCK = "layers.0.swin1"


def matches(weights: Weights) -> bool:
    """Return whether the names of the weights are those of this layout."""
    return all(mark in weights for mark in ("conv_first.weight", f"{_BLOCK}.attn.qkv.weight", "layers.0.adjust1.weight"))


def read(weights: Weights) -> ModelConfig | None:
    """Return the configuration of the network with these weights; None for a variant that irformer does not have."""
    if has_unknown_parts(weights):
        return None
    model = read_frame(NAME, "DRCT", weights, _BLOCK)
    growth, width = len(weights["layers.0.adjust1.weight"]), model["embed_dim"]
    model["growth_channels"] = growth
    model["num_heads"] = [heads(weights, f"layers.{i}.swin1") for i in range(count(weights, "layers."))]
    hidden = [len(weights[f"layers.0.swin{i + 1}.mlp.fc1.weight"]) for i in range(3)]  # the two blocks after them have ratio 1
    model["mlp_ratio"] = ratio([(width + i * growth, hidden[i]) for i in range(3)], 2.0)
    return model if model["norm"]["name"] == "ln" else None


def extra_buffers(network: DRCT, training_patch_size: int | None) -> dict[str, Tensor]:
    """Return the buffers that strict loading requires in addition to the weights."""
    return masks_and_positions(network, training_patch_size)
