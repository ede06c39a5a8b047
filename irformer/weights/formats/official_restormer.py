"""The official layout of Restormer, where the parameters of the norms are in a submodule `body`."""

import re
from collections.abc import Mapping

from torch import Tensor

from irformer.models import Restormer
from irformer.norms import BiasFreeLayerNorm, LayerNorm
from irformer.weights.formats.sizes import ModelConfig, Weights, count, norm, ratio

NAME = "restormer"
CLASS = Restormer
NORMS = (LayerNorm, BiasFreeLayerNorm)
UPSAMPLERS: tuple[str, ...] | None = None


def matches(weights: Weights) -> bool:
    """Return whether the names of the weights are those of this layout."""
    marks = ("patch_embed.proj.weight", "encoder_level1.0.attn.temperature", "latent.0.ffn.project_in.weight")
    return all(mark in weights for mark in marks)


def read(weights: Weights) -> ModelConfig | None:
    """Return the configuration of the network with these weights."""
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    dim, in_channels = weights["patch_embed.proj.weight"].shape[:2]
    hidden = [len(weights[f"{level}.0.ffn.project_in.weight"]) // 2 for level in levels]
    norms = ("encoder_level1.0.norm1.body.bias", "encoder_level1.0.norm1.bias")  # the latter in a bare state dict of irformer
    return {
        "name": "restormer",
        "_target_": "irformer.models.Restormer",
        "norm": norm("ln" if any(name in weights for name in norms) else "ln_biasfree"),
        "scale": 1,
        "in_channels": in_channels,
        "dim": dim,
        "num_blocks": [count(weights, f"{level}.") for level in levels],
        "num_refinement_blocks": count(weights, "refinement."),
        "heads": [len(weights[f"{level}.0.attn.temperature"]) for level in levels],
        "ffn_expansion_factor": ratio([(dim * 2**i, hidden[i]) for i in range(4)], 2.66),
        "bias": "encoder_level1.0.attn.qkv.bias" in weights,
    }


def extra_buffers(network: Restormer, training_patch_size: int | None) -> dict[str, Tensor]:
    """Return no buffers: the official code saves only weights."""
    assert training_patch_size is None
    return {}


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official weights to the names of irformer's Restormer."""
    return {re.sub(r"\b(norm[12])\.body\.", r"\1.", key): value for key, value in state.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of a Restormer with the norm ln or ln_biasfree to the official names."""
    return {re.sub(r"\b(norm[12])\.", r"\1.body.", key): value for key, value in state.items()}
