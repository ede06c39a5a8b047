"""The floor of a computation: the time below which this machine cannot do it.

Its operations over the rate of a large matrix product, and its traffic over the bandwidth of a large copy, both measured on this machine.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irformer.models.flops import count_flops, over_tiles
from irformer.speed.measure import synchronize

_RATE_SECONDS = 1.0  # time spent on the measurement of each rate


@dataclass(frozen=True)
class Rates:
    """What this machine can do at most in one precision.

    Args:
        flops: floating-point operations per second of a large matrix product.
        bytes: bytes read and written per second by a large copy.
    """

    flops: float
    bytes: float


@dataclass(frozen=True)
class Cost:
    """What a computation needs at least.

    Args:
        flops: operations of matrix products and convolutions, two for each multiply-add.
        bytes: bytes that linear layers and convolutions read and write if everything between them stays in the cache.
    """

    flops: float
    bytes: float

    def floor(self, rates: Rates) -> float:
        """Return the seconds that the computation takes at least: operations and traffic overlap."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)

    def line(self, rates: Rates) -> str:
        """Describe the floor in words."""
        return (
            f"floor {1000 * self.floor(rates):.1f} ms: {self.flops / 1e9:,.1f} GFLOP at {rates.flops / 1e9:,.0f} GFLOP/s take "
            f"{1000 * self.flops / rates.flops:.1f} ms, {self.bytes / 1e9:.2f} GB at {rates.bytes / 1e9:.1f} GB/s "
            f"{1000 * self.bytes / rates.bytes:.1f} ms"
        )


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure the best rates of this machine.

    Args:
        device: the device.
        dtype: type of the factors of the matrix product.
    """
    side = 8192 if device.type == "cuda" else 1536
    a = torch.rand(side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    product = _best_seconds(lambda: torch.mm(a, a, out=out), device)
    # Larger than the caches of any processor; the GPU's second level cache has up to 50 MB.
    source = torch.zeros(2**29 if device.type == "cuda" else 2**26, device=device)
    target = torch.zeros_like(source)
    copy = _best_seconds(lambda: target.copy_(source), device)
    return Rates(2 * side**3 / product, 2 * source.nbytes / copy)


def _best_seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    best, ends = math.inf, time.perf_counter() + _RATE_SECONDS
    while time.perf_counter() < ends:
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def forward_cost(network: nn.Module, height: int, width: int, batch: int = 1, element_bytes: int = 4) -> Cost:
    """Return the cost of one forward pass on the CPU or GPU.

    Args:
        network: a network on the CPU whose cost is linear in the number of tiles of `size_multiple`.
        height: height of the input in pixels, before padding to the network's multiple.
        width: width of the input in pixels, before padding.
        batch: number of images.
        element_bytes: bytes of one value.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    features = over_tiles(network, height, width, _count_values)
    return Cost(batch * count_flops(network, height, width), element_bytes * (batch * features + weights))


def step_cost(forward: Cost) -> Cost:
    """Return the cost of a training step, from that of the forward pass.

    The backward pass multiplies twice as much as the forward pass, and each layer reads its input, its weights and the gradient of its
    output once more and writes the gradients of its input and its weights.
    """
    return Cost(3 * forward.flops, 3 * forward.bytes)


def largest_layer(network: nn.Module, height: int, width: int) -> int:
    """Return how many values the linear layer or convolution with the largest input and output reads and writes.

    Args:
        network: a network whose features grow with the number of tiles of `size_multiple`.
        height: height of the input in pixels, before padding to the network's multiple.
        width: width of the input in pixels, before padding.
    """
    return over_tiles(network, height, width, lambda network, image: max(_layer_values(network, image)))


def _count_values(network: nn.Module, image: Tensor) -> int:
    """Count the values that linear layers and convolutions read and write, without their weights."""
    return sum(_layer_values(network, image))


def _layer_values(network: nn.Module, image: Tensor) -> list[int]:
    """Return the size of input and output of each linear layer and convolution that a forward pass calls."""
    values: list[int] = []

    def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values.append(inputs[0].numel() + output.numel())

    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return values
