"""Networks in half precision, and in float16 with the residual stream in float32."""

from typing import Any

import torch
from torch import Tensor, nn

from irformer.models.hat import HybridBlock
from irformer.norms import BatchNorm, NoNorm, ReZero
from irformer.precision.structure import blocks_of, branches_of, replace

# Inputs of layers are divided by a power of two, so that they do not exceed this.
_INPUT_RANGE = 1024.0


def to_half(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of a network in place. The tracked statistics of batch norms stay float32: a variance overflows first."""
    network.to(dtype)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.running_mean, module.running_var = module.running_mean.float(), module.running_var.float()


def to_safe_half(network: nn.Module) -> bool:
    """Convert a network in place to float16 where values are bounded; its residual stream stays float32.

    In irformer's networks, the branches become float16, from the output of their norm to the product of their last layer. Norms, the
    stream and the layers that read it stay float32. Blocks whose branches read the stream itself (none, rezero) stay float32 altogether.

    The structure of other networks is unknown. There, each linear and convolution layer multiplies in float16, with its input divided by a
    power of two that depends on its largest value, and everything else stays float32.

    Returns:
        Whether the network's structure is known.
    """
    blocks = blocks_of(network)
    if not blocks:
        for name, module in list(network.named_modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                replace(network, name, WideProduct(module, any_input=True))
        return False
    for block in blocks.values():
        norms = branches_of(block)
        if any(isinstance(block.get_submodule(name), NoNorm | ReZero) for name in norms):
            continue
        ends = {end: WideProduct(block.get_submodule(end)) for end in norms.values()}
        for name, child in block.named_children():
            if name in norms:
                child.register_forward_hook(_narrow_y)
            else:
                child.half()
        for name, end in ends.items():
            replace(block, name, end)
        if isinstance(block, HybridBlock):
            block.conv_block.register_forward_hook(widen)  # multiplied and added in float32
    return True


class WideProduct(nn.Module):
    """A linear or convolution layer that multiplies in float16 and returns float32.

    Each row of the weight is divided by a power of two, so that its absolute values sum to at most 1: no sum exceeds the largest input,
    which is in range. The result is multiplied by the power and the bias is added in float32.

    Args:
        layer: the layer; it is not changed.
        any_input: the input may be outside of the range of float16; it is divided by a power of two.
    """

    factor: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any, any_input: bool = False) -> None:
        super().__init__()
        self.any_input = any_input
        weight = layer.weight.detach().float()
        sums = weight.abs().flatten(1).sum(1)
        factor = torch.exp2(torch.log2(torch.where(sums > 0, sums, 1.0)).ceil())
        along = (-1,) if isinstance(layer, nn.Linear) else (-1, 1, 1)
        self.register_buffer("factor", factor.view(along), persistent=False)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float().view(along), persistent=False)
        self.layer = _without_bias(layer)
        self.layer.weight = nn.Parameter((weight / factor.view(-1, *[1] * (weight.dim() - 1))).half(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x of any floating-point dtype; returns float32."""
        factor = self.factor
        if self.any_input:
            largest = x.detach().abs().amax().float()
            power = torch.exp2(torch.log2(largest.clamp_min(_INPUT_RANGE) / _INPUT_RANGE).ceil())
            x, factor = x / power, factor * power
        out = self.layer(x.half()).float() * factor
        return out if self.bias is None else out + self.bias


def _without_bias(layer: Any) -> Any:
    """Return a layer of the same kind without weight and bias."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )


def _narrow_y(_norm: nn.Module, _args: Any, output: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Give the branch the result of its norm in float16; a hook."""
    y, scale = output
    return y.half(), scale


def widen(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """Convert the output of a module to float32; a hook."""
    return output.float()
