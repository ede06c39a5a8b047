"""The same function with a residual stream of another magnitude."""

import copy
from typing import Any

from torch import nn

from irformer.errors import UserError
from irformer.models.frame import WindowTransformer
from irformer.models.restormer import Restormer
from irformer.norms import (
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
    RMSNorm,
)
from irformer.precision.structure import blocks_of, branches_of

# Norms whose result does not depend on the magnitude of their input, apart from eps.
_INVARIANT = (LayerNorm, BiasFreeLayerNorm, RMSNorm, ILN, InstanceNorm, BatchNorm)


def scale_stream(network: nn.Module, c: float) -> nn.Module:
    """Return a network that computes the same images, with c times the residual stream.

    It shows what the magnitude of the stream does by itself, for example in float16. The reparametrization is exact:

    - the stream starts c times as large: the norm of the patch embedding, or the first convolution where there is no norm, is multiplied;
    - each norm returns what it did, since eps is multiplied by c^2: (c x - c mu) / sqrt(c^2 var + c^2 eps) = (x - mu) / sqrt(var + eps).
      With the old eps, y would differ by a factor of sqrt((var + eps) / (var + eps / c^2)), which is at most 1 + eps / (2 var) for c > 1;
    - each branch adds c times as much: its last layer is multiplied, or LayerScale's vector. A norm that rescales its branch (i-LN) already
      does so, since its sigma is c times as large;
    - layers that read the stream (the convolutions of groups, of the body and between levels) are linear or, with leaky ReLU,
      homogeneous: only their biases are multiplied;
    - the end divides by c: a norm with statistics does so itself; the weights of an affine end, or of the first layer after the stream, are
      divided.

    If c is a power of two, every intermediate value is multiplied without a rounding error, and the images have the same bits.

    Args:
        network: SwinIR, HAT, DRCT or Restormer; it is not changed.
        c: the factor, above 0.

    Returns:
        A copy of the network. Files of weights do not hold its eps, so it is for evaluation in memory.

    Raises:
        UserError: c is not above 0, the network's structure is unknown, or its branches read the stream itself (norm=none, norm=rezero),
            so that no reparametrization exists.
    """
    if not c > 0:
        raise UserError(f"scale_stream: c={c}: expected a factor above 0")
    if not isinstance(network, WindowTransformer | Restormer) or not blocks_of(network):
        raise UserError(
            f"scale_stream: {type(network).__name__} is a network of unknown structure; expected irformer's SwinIR, HAT, DRCT or Restormer"
        )
    scaled: Any = copy.deepcopy(network)
    blocks = blocks_of(scaled)
    for name, block in blocks.items():
        _scale_block(name, block, c)
    inside = {module for block in blocks.values() for module in block.modules()}
    if isinstance(network, Restormer):
        _multiply(scaled.patch_embed.proj, c)
        between = [module for module in scaled.modules() if module not in inside]
        _multiply_biases([module for module in between if module not in (scaled.patch_embed.proj, scaled.output)], c)
        scaled.output.weight.data /= c
    else:
        _multiply_biases([module for module in scaled.layers.modules() if module not in inside], c)
        _scale_ends(scaled, c)
    return scaled


def _scale_block(name: str, block: Any, c: float) -> None:
    """Make a block add c times as much to a stream that is c times as large."""
    for norm_name, end in branches_of(block).items():
        norm = block.get_submodule(norm_name)
        if not isinstance(norm, (*_INVARIANT, DynamicTanh)):
            raise UserError(
                f"scale_stream: {name}.{norm_name} is {type(norm).__name__}, whose result depends on the magnitude of its input: the "
                "stream cannot be scaled without changing the images; expected a norm with statistics, such as LayerNorm or i-LN"
            )
        _absorb(norm, c)
        if isinstance(norm, LayerScale):
            norm.gamma.data *= c
        elif not _rescales(norm):
            _multiply(block.get_submodule(end), c)
            if norm_name == "norm1" and hasattr(block, "conv_scale"):  # the second end of HAT's branch, whose attention is not homogeneous
                block.conv_scale *= c


def _rescales(norm: nn.Module) -> bool:
    """Return whether a norm multiplies the output of its branch by the deviation of the stream."""
    return isinstance(norm, LayerNormRescale) or (isinstance(norm, ILN) and not isinstance(norm, ILNWithoutRescale))


def _absorb(norm: Any, c: float) -> None:
    """Make a norm return y of x when it is given c x."""
    if isinstance(norm, DynamicTanh):
        norm.alpha.data /= c
        return
    norm.eps *= c**2
    if isinstance(norm, LayerNormRescale):
        norm.image_eps *= c**2
    if isinstance(norm, BatchNorm):
        norm.running_mean *= c
        norm.running_var *= c**2


def _scale_ends(network: Any, c: float) -> None:
    """Scale the stream of a window transformer where it starts, and back where it ends."""
    start, end = network.patch_embed.norm, network.norm
    if not isinstance(start, NoNorm):
        _multiply(start, c)
        if isinstance(end, Affine):
            end.weight.data /= c
        else:
            _absorb(end, c)
        return
    # The long skip connection leaves before the patch embedding: it is scaled with the stream, and both end in the upsampler.
    _multiply(network.conv_first, c)
    _multiply_biases(network.conv_after_body.modules(), c)
    last = (
        "conv_last" if network.upsampler == "" else "upsample.0" if network.upsampler == "pixelshuffledirect" else "conv_before_upsample.0"
    )
    network.get_submodule(last).weight.data /= c


def _multiply(layer: Any, c: float) -> None:
    """Multiply the output of a layer or norm."""
    layer.weight.data *= c
    _multiply_biases([layer], c)


def _multiply_biases(layers: Any, c: float) -> None:
    for layer in layers:
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias.data *= c
