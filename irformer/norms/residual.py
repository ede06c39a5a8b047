"""The residual update of every block, whatever its norm."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from irformer.norms.layers import NormOutput


def residual(x: Tensor, norm: Callable[[Tensor], NormOutput], branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + scale * branch(y), where y, scale = norm(x): the residual update of every block, for any norm.

    The multiplication is done in the scale's dtype (float32), and the sum keeps the dtype of x, so half-precision features stay
    half-precision.
    """
    y, scale = norm(x)
    update = branch(y)
    if scale is None:
        return x + update
    if scale.dtype == update.dtype == x.dtype:
        return torch.addcmul(x, scale, update)
    return x + (scale * update).to(x.dtype)


class Residual(nn.Module):
    """The residual block x + scale * branch(y) with y, scale = norm(x), as a module for any norm and any branch.

    Args:
        norm: a module that returns (y, scale).
        branch: a module that maps y to an update with the shape of x.
    """

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return the updated features, with the shape and dtype of x."""
        return residual(x, self.norm, self.branch)
