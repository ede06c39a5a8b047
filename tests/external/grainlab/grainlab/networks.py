"""A backbone: convolutional residual blocks, with any norm of irformer or of this package."""

from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from irformer.norms import NormScheme, residual


class Block(nn.Module):
    """A residual block: a norm and two convolutions.

    Args:
        dim: number of channels C.
        norm: builds the norm.
    """

    def __init__(self, dim: int, norm: NormScheme) -> None:
        super().__init__()
        self.norm = norm.block(dim, channels_first=True)
        self.branch = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return residual(x, self.norm, self.branch)


class GrainNet(nn.Module):
    """Residual blocks between two convolutions, with a global residual connection. The output has the size of the input.

    irformer requires only `scale` and `in_channels`. `groups` lets the probe record each block; without it, there is no figure of the
    training dynamics.

    Args:
        norm: the network's normalization.
        in_channels: image channels, 3 (RGB) or 1.
        dim: number of channels C.
        blocks: number of residual blocks.
    """

    scale = 1

    def __init__(
        self,
        norm: NormScheme,
        in_channels: int = 3,
        dim: Annotated[int, Interval(ge=1, le=1024)] = 32,
        blocks: Annotated[int, Interval(ge=1, le=64)] = 4,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.head = nn.Conv2d(in_channels, dim, 3, padding=1)
        self.body = nn.ModuleList(Block(dim, norm) for _ in range(blocks))
        self.tail = nn.Conv2d(dim, in_channels, 3, padding=1)

    @property
    def groups(self) -> dict[str, nn.Module]:
        """Blocks by name, in order of depth."""
        return {f"body.{i}": block for i, block in enumerate(self.body)}

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to the same shape, any H and W."""
        x = self.head(lq)
        for block in self.body:
            x = block(x)
        return lq + self.tail(x)
