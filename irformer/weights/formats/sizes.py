"""What the readers of official layouts share: sizes and norms from the names and shapes of weights."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Weights = Mapping[str, Tensor]
ModelConfig = dict[str, Any]

# The norms of the official codes, with what their weights do not say. Not read from configs/norm: what a user changes there must not
# change how an official file is understood.
_NORMS: dict[str, ModelConfig] = {
    "ln": {"block": "LayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "ln_biasfree": {"block": "BiasFreeLayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "iln": {"block": "ILN", "eps": 1e-4, "ends": "affine", "standardize_input": True},
}


def norm(name: str) -> ModelConfig:
    """The configuration of a norm of the official codes."""
    facts = _NORMS[name]
    block = {"_target_": f"irformer.norms.{facts['block']}", "_partial_": True, "eps": facts["eps"]}
    ends = {"ends": facts["ends"], "standardize_input": facts["standardize_input"]}
    return {"_target_": "irformer.norms.NormScheme", "name": name, "block": block, **ends}


def count(weights: Weights, prefix: str) -> int:
    """How many different words follow a prefix of names."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def heads(weights: Weights, block: str) -> int:
    """Attention heads of a block, by its table of position biases."""
    return weights[f"{block}.attn.relative_position_bias_table"].shape[1]


def ratio(pairs: list[tuple[int, int]], official: float) -> float:
    """The r with int(width * r) == hidden for all pairs (width, hidden): the official one if it fits, or else the shortest decimal."""
    low = max(hidden / width for width, hidden in pairs)
    candidates = [official, *(math.ceil(low * 10**digits) / 10**digits for digits in range(8)), low]
    return next((r for r in candidates if all(int(width * r) == hidden for width, hidden in pairs)), official)
