"""Helpers that determine sizes and norms from the names and shapes of official weights."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Weights = Mapping[str, Tensor]
ModelConfig = dict[str, Any]

# The norms of the official code, with the settings that the weights do not determine. Not read from configs/norm: a user's changes there
# must not affect how an official file is read.
_NORMS: dict[str, ModelConfig] = {
    "ln": {"block": "LayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "ln_biasfree": {"block": "BiasFreeLayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "iln": {"block": "ILN", "eps": 1e-4, "ends": "affine", "standardize_input": True},
}


def norm(name: str) -> ModelConfig:
    """Return the configuration of a norm of the official code."""
    official = _NORMS[name]
    block = {"_target_": f"irformer.norms.{official['block']}", "_partial_": True, "eps": official["eps"]}
    ends = {"ends": official["ends"], "standardize_input": official["standardize_input"]}
    return {"_target_": "irformer.norms.NormScheme", "name": name, "block": block, **ends}


def count(weights: Weights, prefix: str) -> int:
    """Count the distinct name components that follow a prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def heads(weights: Weights, block: str) -> int:
    """Return the number of attention heads of a block, from its relative position bias table."""
    return weights[f"{block}.attn.relative_position_bias_table"].shape[1]


def ratio(pairs: list[tuple[int, int]], official: float) -> float:
    """Return r with int(width * r) == hidden for all pairs (width, hidden): the official value if it fits, else the shortest decimal."""
    low = max(hidden / width for width, hidden in pairs)
    candidates = [official, *(math.ceil(low * 10**digits) / 10**digits for digits in range(8)), low]
    return next((r for r in candidates if all(int(width * r) == hidden for width, hidden in pairs)), official)
