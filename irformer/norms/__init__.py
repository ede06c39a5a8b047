"""Normalization layers with one interface: each returns the input of a residual branch and a scale for its output.

    y, scale = norm(x)            x: [B, ..., C], or [B, C, *spatial] with channels_first
    x = x + scale * branch(y)     scale None means 1

The scale is returned and never stored on the module, so a network can be deep-copied, checkpointed, compiled and called re-entrantly at
any time. Statistics are computed in float32 (float64 for float64 input) regardless of the features' dtype, and gradients flow through
them.
"""

from irformer.norms.layers import (
    ILN,
    Affine,
    BatchNorm,
    BiasFreeLayerNorm,
    DynamicTanh,
    ILNWithoutRescale,
    InstanceNorm,
    LayerNorm,
    LayerNormRescale,
    LayerScale,
    NoNorm,
    NormFactory,
    NormOutput,
    Positive,
    ReZero,
    RMSNorm,
)
from irformer.norms.residual import Residual, residual
from irformer.norms.scheme import Ends, NormScheme

__all__ = [
    "ILN",
    "Affine",
    "BatchNorm",
    "BiasFreeLayerNorm",
    "DynamicTanh",
    "Ends",
    "ILNWithoutRescale",
    "InstanceNorm",
    "LayerNorm",
    "LayerNormRescale",
    "LayerScale",
    "NoNorm",
    "NormFactory",
    "NormOutput",
    "NormScheme",
    "Positive",
    "RMSNorm",
    "ReZero",
    "Residual",
    "residual",
]
