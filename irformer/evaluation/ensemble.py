"""The self-ensemble of published "+" rows: the mean over the eight orientations of an image."""

from typing import Any

import torch
from torch import Tensor, nn

from irformer.models.interface import multiple_of, padding_of


class SelfEnsemble(nn.Module):
    """Averages a network's outputs for the eight flips and rotations of its input, each turned back, in float before rounding.

    It takes the place of the network (`irformer.models.interface.Network`) and needs eight times its time. Padding that a protocol adds
    outside the network is added once, before the image is turned; the network pads each orientation by itself.

    Args:
        network: maps [B, C, H, W] to [B, C, scale*H, scale*W].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        declared: Any = network
        self.network = network
        self.scale: int = declared.scale
        self.in_channels: int = declared.in_channels
        self.size_multiple = multiple_of(network)
        self.test_padding = padding_of(network)

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, C, H, W] in [0, 1] to [B, C, scale*H, scale*W]."""
        total: Tensor | None = None
        for transposed in (False, True):
            for flipped in ([], [2], [3], [2, 3]):
                x = lq.transpose(2, 3) if transposed else lq
                out = torch.flip(self.network(torch.flip(x, flipped)), flipped)
                out = out.transpose(2, 3) if transposed else out
                total = out.float() if total is None else total.add_(out)
        assert total is not None
        return total / 8
