"""Weights on whose scale a network's output does not depend, because a normalization follows them.

If all weights of such a set are multiplied by the same c > 0, the output stays the same, up to the eps of the norms. The loss has no
gradient along their scale, so steps orthogonal to them let their norm grow, whatever the loss. Two kinds are known here:

- The residual stream of SwinIR and DRCT. If every norm that reads it, the final one too, divides out its scale, then these weights set the
  stream's magnitude, and nothing else depends on them: the affine map of the patch embedding's norm, at which the stream begins; the last
  layer of each branch (attn.proj, mlp.fc2), unless the norm multiplies the branch by the stream's own scale, as i-LN does; and the biases
  of the convolutions on the stream. An affine or absent final norm sees the stream's scale, so there is no such set. In HAT there is none
  either: the output of its channel attention is not proportional to any weight.
- Queries and keys of Restormer, which are normalized along the pixels: the part of the depthwise convolution that computes them.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from irformer.dynamics.selection import matching
from irformer.models.interface import evaluation_mode, stream_of

# Features and twice the features: eps changes the ratio by less.
_TOLERANCE = 1e-3


def scale_invariant_weights(network: nn.Module) -> dict[str, list[Tensor]]:
    """Return sets of weights, by name, on whose scale the output does not depend; empty if none are known.

    Whether a norm divides out the scale of its input is found out by calling it, so this holds for any norm.
    """
    sets = {}
    stream = _stream_weights(network)
    if stream:
        sets["stream"] = stream
    for name, module in network.named_modules():
        if hasattr(module, "scale_invariant_weights"):
            sets[name] = list(module.scale_invariant_weights())
    return sets


def _stream_weights(network: nn.Module) -> list[Tensor]:
    stream = stream_of(network)
    if stream is None:
        return []
    modules = dict(network.named_modules())
    responses = {_response(modules[name]) for name in matching(stream.norms, modules)}
    if responses == {"fixed"}:
        patterns = (*stream.start, *stream.branches, *stream.biases)
    elif responses == {"proportional"}:
        patterns = (*stream.start, *stream.biases)
    else:
        return []
    if _response(modules[stream.final]) is None:
        return []
    parameters = dict(network.named_parameters())
    return [parameters[name] for name in matching(patterns, parameters)]


def _response(norm: nn.Module) -> Literal["fixed", "proportional"] | None:
    """Return how a norm's branch scales with the norm's input: not at all, in proportion, or otherwise (None)."""
    weight = next(norm.parameters(), None)
    if weight is None:
        return None
    channels_first = getattr(norm, "channels_first", False) is True
    shape = (1, weight.numel(), 4, 4) if channels_first else (1, 4, 4, weight.numel())
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight)
    with evaluation_mode(norm), torch.no_grad():
        (y, scale), (y2, scale2) = norm(features), norm(2 * features)
    if not torch.allclose(y, y2, rtol=_TOLERANCE, atol=_TOLERANCE):
        return None
    if scale is None or torch.equal(scale, scale2):
        return "fixed"
    return "proportional" if torch.allclose(2 * scale, scale2, rtol=_TOLERANCE) else None
