"""Counting the floating-point operations of a network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(network: nn.Module, image: Tensor) -> int:
    """Count the floating-point operations of one forward pass on images: those of matrix products and convolutions, two per multiply-add.

    Args:
        network: any network.
        image: [B, C, H, W].
    """
    # The counter does not support the fused CPU attention kernel; the math kernel consists of matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops()


def count_flops(network: nn.Module, height: int, width: int) -> int:
    """Count the floating-point operations of one forward pass on an RGB image, two for each multiply-add.

    Args:
        network: a network whose cost is linear in the number of tiles of `size_multiple`.
        height: height of the input in pixels, before padding to the network's multiple.
        width: width of the input in pixels, before padding.
    """
    return over_tiles(network, height, width, forward_flops)


def over_tiles(network: nn.Module, height: int, width: int, count: Callable[[nn.Module, Tensor], int]) -> int:
    """Count something on one and on two tiles, and extrapolate to an RGB image padded to the network's multiple.

    Args:
        network: a network for which the count is linear in the number of tiles of `size_multiple`.
        height: height of the image in pixels, before padding.
        width: width of the image in pixels, before padding.
        count: counts for a network and an image.
    """
    tile: int = network.size_multiple  # type: ignore[assignment]
    one, two = (count(network, torch.zeros(1, 3, tile, n * tile)) for n in (1, 2))
    return one + (math.ceil(height / tile) * math.ceil(width / tile) - 1) * (two - one)
