"""Building blocks shared by several networks, except attention: argument types, input scaling, groups, upsamplers."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval, Len
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from irformer.models.any_size import exporting, pad_by_index
from irformer.norms import NormScheme

# RGB mean and standard deviation of DIV2K, with which the official networks and official i-LN normalize the input.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
DIV2K_STD = (0.2842, 0.2701, 0.2920)

Upsampling = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""]
ResidualConv = Literal["1conv", "3conv", "identity"]

# Ranges of sizes and rates in configurations. The upper bounds are far above all published networks: a typing error must not start
# building for hours.
Count = Annotated[int, Interval(ge=1, le=16384)]
Blocks = Annotated[tuple[Annotated[int, Interval(ge=1, le=64)], ...], Len(1, 64)]
Window = Annotated[int, Interval(ge=1, le=64)]
Scale = Annotated[int, Interval(ge=1, le=64)]
Ratio = Annotated[float, Interval(gt=0, le=64)]
PixelRange = Annotated[float, Interval(gt=0, le=65535)]
Probability = Annotated[float, Interval(ge=0, lt=1)]
Channels = Literal[1, 3]


class InputScaling(nn.Module):
    """Normalize pixels before a network, and undo it after the network: mean, standard deviation and range.

    Args:
        channels: 3 uses the RGB mean and standard deviation of DIV2K; any other number uses mean 0 and standard deviation 1.
        pixel_range: the network sees pixels in [0, pixel_range] minus the mean; 1, or 255 for the official JPEG networks.
        standardize: also divide by the standard deviation, as official i-LN does.
        center: subtract the mean, as all official networks here except Restormer do.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, pixel_range: float, standardize: bool, center: bool = True) -> None:
        super().__init__()
        known = channels == 3
        mean = torch.tensor(DIV2K_MEAN if known and center else [0.0] * channels)
        std = torch.tensor(DIV2K_STD if known and standardize else [1.0] * channels)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", (std / pixel_range).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalize pixels [B, C, H, W] in [0, 1]."""
        return (pixels - self.mean.to(pixels.dtype)) / self.std.to(pixels.dtype)

    def undo(self, features: Tensor) -> Tensor:
        """Map network output [B, C, H, W] back to pixels in [0, 1]."""
        return features * self.std.to(features.dtype) + self.mean.to(features.dtype)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] by reflection, at the bottom and on the right, to the next multiple of `multiple`.

    Reflection needs more pixels than it adds; smaller images are padded by replicating their edge.
    """
    if exporting():
        return pad_by_index(x, multiple)
    bottom, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    # Also called if there is nothing to pad: a branch would make torch.compile recompile the network.
    mode = "reflect" if bottom < x.shape[2] and right < x.shape[3] else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def to_channels_last(x: Tensor) -> Tensor:
    """Return a view of [B, C, H, W] as [B, H, W, C]."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """Return a view of [B, H, W, C] as [B, C, H, W]."""
    return x.permute(0, 3, 1, 2)


def apply_group(group: nn.Module, x: Tensor, checkpointing: bool) -> Tensor:
    """Apply a group of blocks to features.

    Args:
        group: maps features to features.
        x: features.
        checkpointing: in training, keep only the group's input, and recompute its activations in the backward pass, with the same random
            numbers.
    """
    if not (checkpointing and group.training and torch.is_grad_enabled()):
        return group(x)

    statistics = running_statistics(group)

    if not statistics:  # torch.compile does not support contexts
        return checkpoint(group, x, use_reentrant=False)
    return checkpoint(group, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _unchanged(statistics)))


def running_statistics(group: nn.Module) -> list[Tensor]:
    """Return the running statistics of batch norms and their counters; the other buffers, tables of positions, do not change."""
    return [buffer for buffer in group.buffers() if buffer.is_floating_point() or buffer.dim() == 0]


@contextmanager
def _unchanged(buffers: list[Tensor]) -> Iterator[None]:
    """Undo what a block does to buffers: a batch counts once in the running statistics, although its activations are computed twice."""
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, kept, strict=True):
            # `data`, because the backward pass keeps the statistics and refuses any that were changed; it does not read their values.
            buffer.data.copy_(value)


class PatchNorm(nn.Module):
    """The norm of the patch embedding (patch size 1), named patch_embed.norm as in official checkpoints.

    Args:
        dim: number of channels C.
        norms: the scheme whose `ends` norm is used.
    """

    def __init__(self, dim: int, norms: NormScheme) -> None:
        super().__init__()
        self.norm = norms.end(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to [B, H, W, C]."""
        return self.norm(x)[0]


def residual_conv(dim: int, kind: ResidualConv) -> nn.Module:
    """Build the last layer of a group or the body: one 3x3 convolution, the bottleneck of SwinIR-L, or identity."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    if kind == "3conv":
        return nn.Sequential(
            nn.Conv2d(dim, dim // 4, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(dim // 4, dim // 4, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(dim // 4, dim, 3, padding=1),
        )
    if kind == "identity":
        return nn.Identity()
    raise ValueError(f"resi_connection={kind}: expected 1conv, 3conv or identity")


class ResidualGroup(nn.Module):
    """A group of SwinIR (RSTB) or HAT (RHAG): a sequence of blocks and a convolution, with a residual connection.

    Args:
        blocks: maps [B, H, W, C] to the same shape; named residual_group in official checkpoints.
        dim: number of channels C.
        resi_connection: layer after the blocks: `1conv`, `3conv` or `identity`.
    """

    def __init__(self, blocks: nn.Module, dim: int, resi_connection: ResidualConv) -> None:
        super().__init__()
        self.residual_group = blocks
        self.conv = residual_conv(dim, resi_connection)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        y = self.residual_group(x)
        return x + to_channels_last(self.conv(to_channels_first(y)))


def plan_groups(depths: tuple[int, ...], num_heads: tuple[int, ...], drop_path_rate: float) -> list[tuple[int, list[float]]]:
    """Return the heads of each group and the drop-path probability of each of its blocks, increasing linearly from 0 over the depth.

    Raises:
        ValueError: `depths` and `num_heads` have different lengths.
    """
    if len(depths) != len(num_heads):
        raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}: give one number of heads for each group")
    last = max(sum(depths) - 1, 1)
    rates = iter([drop_path_rate * i / last for i in range(sum(depths))])
    return [(heads, [next(rates) for _ in range(depth)]) for depth, heads in zip(depths, num_heads, strict=True)]


def pixel_shuffle_upsampler(channels: int, scale: int) -> nn.Sequential:
    """Build the upsampler of convolutions and PixelShuffle, in steps of 2 or one step of 3: [B, C, H, W] to [B, C, scale*H, scale*W]."""
    layers: list[nn.Module] = []
    if scale == 3:
        layers = [nn.Conv2d(channels, 9 * channels, 3, padding=1), nn.PixelShuffle(3)]
    elif scale >= 1 and scale & (scale - 1) == 0:
        for _ in range(scale.bit_length() - 1):
            layers += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    else:
        raise ValueError(f"scale={scale}: the pixelshuffle upsampler takes 3 or a power of 2")
    return nn.Sequential(*layers)


def init_transformer(module: nn.Module) -> None:
    """Initialize linear layers as the official networks do: weights from a truncated normal (std 0.02), biases 0. For Module.apply."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
