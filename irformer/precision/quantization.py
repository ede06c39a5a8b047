"""Fake quantization: weights and activations rounded to a few bits, computed in float32."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from irformer.errors import UserError

_QUANTIZED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Calibration:
    """The images from which the ranges of activations are taken.

    Args:
        names: what the images are, for the record of the scheme.
        images: degraded images, each [1, C, h, w] in [0, 1].
    """

    names: tuple[str, ...]
    images: tuple[Tensor, ...]


def steps(bits: int) -> int:
    """Return the number of steps on each side of zero: 127 for 8 bits, 7 for 4 bits. The most negative integer is unused."""
    return 2 ** (bits - 1) - 1


def step_size(largest: Tensor, bits: int) -> Tensor:
    """Return the size of a step for values up to `largest`; 1 where all values are zero."""
    return torch.where(largest > 0, largest / steps(bits), torch.ones_like(largest))


def quantize(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """Round x to multiples of the step, to even in ties, and clamp to the range of the integers.

    Args:
        x: values.
        step: size of a step, broadcast over x.
        bits: bits of the integers.
    """
    top = steps(bits)
    return (x / step).round().clamp(-top, top) * step


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """Quantize a weight [C_out, ...] with one step size for each output channel, from the largest absolute value."""
    largest = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.dim() - 1))
    return quantize(weight, step_size(largest, bits), bits)


def quantize_network(network: nn.Module, bits: int, calibration: Calibration) -> list[str]:
    """Quantize the linear and convolution layers of a network in place: their weights, and their inputs with one range each.

    Args:
        network: a network in float32, in evaluation mode.
        bits: bits of the integers.
        calibration: the images from which the ranges of the inputs are taken.

    Returns:
        The names of layers that no calibration image reached; they are not quantized.

    Raises:
        UserError: the input of a layer is not finite for a calibration image.
    """
    layers: dict[str, nn.Module] = {name: module for name, module in network.named_modules() if isinstance(module, _QUANTIZED)}
    largest = _largest_inputs(network, layers, calibration)
    for name, value in largest.items():
        if not torch.isfinite(value):
            raise UserError(
                f"{name}: its input is not finite for the calibration images ({', '.join(calibration.names)}), expected finite numbers: "
                "the weights are damaged, or too large for float32"
            )
        layer: Any = layers[name]
        layer.weight.data = quantize_weight(layer.weight.data, bits)
        layer.register_buffer("input_step", step_size(value, bits), persistent=False)
        layer.register_forward_pre_hook(partial(_quantize_input, bits))
    return [name for name in layers if name not in largest]


def _largest_inputs(network: nn.Module, layers: dict[str, nn.Module], calibration: Calibration) -> dict[str, Tensor]:
    """Return the largest absolute input of each layer that the calibration images reach."""
    largest: dict[str, Tensor] = {}

    def see(name: str, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        value = args[0].detach().abs().amax()
        largest[name] = torch.maximum(largest[name], value) if name in largest else value

    hooks = [layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers.items()]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            for image in calibration.images:
                network(image.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _quantize_input(bits: int, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    step: Any = module.input_step
    return (quantize(args[0], step, bits), *args[1:])
