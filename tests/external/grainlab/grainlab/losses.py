"""A loss: L1 of images and of their gradients."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn


class Edges(nn.Module):
    """L1 of the images plus weighted L1 of the differences between neighboring pixels.

    Args:
        weight: weight of the differences.
    """

    def __init__(self, weight: Annotated[float, Ge(0)] = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        error = restored - clean
        return error.abs().mean() + self.weight * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
