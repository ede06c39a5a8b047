"""A norm: RMSNorm over a whole image, whose scale restores the magnitude of the features after the branch."""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn


class ImageRMS(nn.Module):
    """y = x / rms * weight, where rms = sqrt(mean(x^2) + eps) over all tokens and channels of an image; the scale is rms.

    Args:
        dim: number of channels C.
        eps: added to the mean square.
        channels_first: features are [B, C, H, W] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Annotated[float, Gt(0)] = 1e-5, channels_first: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, *[1, 1] if channels_first else []))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalize features; returns (y, rms), where y has the shape of x."""
        rms = (x.float().square().mean(dim=list(range(1, x.dim())), keepdim=True) + self.eps).sqrt()
        return (x / rms * self.weight).to(x.dtype), rms
