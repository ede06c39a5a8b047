"""What two or more of the networks share: windows and attention within them, Swin blocks, groups, input scaling, upsamplers."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval, Len
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn

from irformer.norms import NormScheme, residual

# The RGB mean and standard deviation of DIV2K that the official networks and official i-LN take off the input.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
DIV2K_STD = (0.2842, 0.2701, 0.2920)

Upsampling = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""]
ResidualConv = Literal["1conv", "3conv", "identity"]

# What a configuration may say of sizes and rates. The upper ends lie far above all published networks: they keep a slip of the keyboard
# from building for hours.
Count = Annotated[int, Interval(ge=1, le=16384)]
Blocks = Annotated[tuple[Annotated[int, Interval(ge=1, le=64)], ...], Len(1, 64)]
Window = Annotated[int, Interval(ge=1, le=64)]
Scale = Annotated[int, Interval(ge=1, le=64)]
Ratio = Annotated[float, Interval(gt=0, le=64)]
PixelRange = Annotated[float, Interval(gt=0, le=65535)]
Probability = Annotated[float, Interval(ge=0, lt=1)]
Channels = Literal[1, 3]


def partition_windows(x: Tensor, window: int) -> Tensor:
    """Cut [B, H, W, C] into windows: [B, H / window, W / window, window^2, C]. H and W are multiples of the window."""
    B, H, W, C = x.shape
    x = x.view(B, H // window, window, W // window, window, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(B, H // window, W // window, window * window, C)


def merge_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Put windows [..., window^2, C], in the order of partition_windows, together again: [B, height, width, C]."""
    C = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, C)


def tokens_apart(window: int, shift: int) -> Tensor:
    """Which pairs of tokens of a shifted border window are no neighbours in the image: [3, window^2, window^2], bool.

    After the cyclic shift the last `shift` rows of the bottom windows and columns of the right ones have come around from the other side
    of the image. For the windows at the right, at the bottom, and for the one in the corner; all others are whole.
    """
    axis = torch.arange(window) >= window - shift
    down, right = (grid.flatten().long() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    regions = torch.stack([right, down, 2 * down + right])
    return regions[:, :, None] != regions[:, None, :]


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for every pair of tokens in a window: [window^2, window^2], values in 0 .. (2 window - 1)^2 - 1."""
    axis = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position (Liu et al., Swin, arXiv 2103.14030).

    Args:
        dim: number of channels C.
        window: side of a window in tokens.
        heads: number of heads; divides dim.
        qkv_bias: queries, keys and values carry biases.
        shift: how far the windows that it gets were shifted, in tokens; what came around attends within its own.

    Raises:
        ValueError: the heads do not divide dim.
    """

    relative_position_index: Tensor
    apart: Tensor

    def __init__(self, dim: int, window: int, heads: int, qkv_bias: bool = True, shift: int = 0) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"num_heads: {heads} heads do not divide {dim} channels; choose a divisor")
        self.heads = heads
        self.shift = shift
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)
        if shift > 0:
            self.register_buffer("apart", tokens_apart(window, shift), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """Attend within each window: [B, rows, columns, n, C] with n = window^2 to the same shape."""
        B, rows, columns, n, C = windows.shape
        qkv = self.qkv(windows).view(B, rows, columns, n, 3, self.heads, C // self.heads).permute(4, 0, 1, 2, 5, 3, 6)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if self.shift == 0:
            return self.proj(_attend(qkv, bias))
        # Border windows get a bias of their own: one mask for every window of an image would be gigabytes on large ones.
        at_right, at_bottom, in_corner = (bias.masked_fill(apart, -100.0) for apart in self.apart)
        upper = torch.cat([_attend(qkv[:, :, :-1, :-1], bias), _attend(qkv[:, :, :-1, -1:], at_right)], 2)
        lowest = torch.cat([_attend(qkv[:, :, -1:, :-1], at_bottom), _attend(qkv[:, :, -1:, -1:], in_corner)], 2)
        return self.proj(torch.cat([upper, lowest], 1))


def _attend(qkv: Tensor, bias: Tensor) -> Tensor:
    """Attention with one bias [heads, n, n] for all windows: [3, B, rows, columns, heads, n, d] to [B, rows, columns, n, heads * d]."""
    _, B, rows, columns, heads, n, d = qkv.shape
    q, k, v = qkv.flatten(1, 3).unbind(0)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0).to(q.dtype))
    return attended.transpose(1, 2).reshape(B, rows, columns, n, heads * d)


class Mlp(nn.Module):
    """Two linear layers with GELU between them, on the last axis.

    Args:
        dim: number of channels in and out.
        hidden: number of channels between.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"mlp_ratio: leaves no hidden channels of {dim}; choose a larger ratio")
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C]."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """A Swin Transformer layer (STL): attention within (shifted) windows, then the MLP, each a residual branch behind its norm.

    Args:
        dim: number of channels C.
        heads: number of attention heads.
        window: side of a window in tokens.
        shift: how far the windows are shifted, in tokens; 0 or window // 2.
        mlp_ratio: hidden channels of the MLP over C.
        qkv_bias: queries, keys and values carry biases.
        drop_path: probability that a branch is left out for a sample, in training.
        norms: builds the two norms.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, mlp_ratio: float, qkv_bias: bool, drop_path: float, norms: NormScheme
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = norms.block(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias, shift)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norms.block(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map features [B, H, W, C] to the same shape."""
        x = residual(x, self.norm1, lambda y: self.drop_path(self._attend(y)))
        return residual(x, self.norm2, lambda y: self.drop_path(self.mlp(y)))

    def _attend(self, y: Tensor) -> Tensor:
        _, H, W, _ = y.shape
        if self.shift == 0:
            return merge_windows(self.attn(partition_windows(y, self.window)), self.window, H, W)
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = merge_windows(self.attn(partition_windows(y, self.window)), self.window, H, W)
        return torch.roll(y, (self.shift, self.shift), (1, 2))


class InputScaling(nn.Module):
    """What is done to pixels before a network and undone after it: the mean off, the range, the standard deviation.

    Args:
        channels: 3 takes the mean and standard deviation of DIV2K's RGB; any other number takes mean 0 and deviation 1.
        pixel_range: the network sees pixels in [0, pixel_range] less the mean; 1, or 255 for the official JPEG networks.
        standardize: divide by the standard deviation too, as official i-LN.
        center: take the mean off, as all official networks here but Restormer.
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
        """Pixels [B, C, H, W] in [0, 1] to what the network reads."""
        return (pixels - self.mean.to(pixels.dtype)) / self.std.to(pixels.dtype)

    def undo(self, features: Tensor) -> Tensor:
        """What the network gives [B, C, H, W] to pixels in [0, 1]."""
        return features * self.std.to(features.dtype) + self.mean.to(features.dtype)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] at the bottom and on the right, by reflection, to the next multiple of `multiple`.

    Reflection needs more pixels than it adds; a smaller image is padded with its edge.
    """
    bottom, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    # Padding by nothing is not left out: a branch on it would compile a network once more.
    mode = "reflect" if bottom < x.shape[2] and right < x.shape[3] else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def to_channels_last(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H, W, C], a view."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """[B, H, W, C] to [B, C, H, W], a view."""
    return x.permute(0, 3, 1, 2)


class PatchNorm(nn.Module):
    """The norm of the patch embedding (patch side 1), under the name that official checkpoints give it: patch_embed.norm.

    Args:
        dim: number of channels C.
        norms: the scheme whose `ends` stands here.
    """

    def __init__(self, dim: int, norms: NormScheme) -> None:
        super().__init__()
        self.norm = norms.end(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to [B, H, W, C]."""
        return self.norm(x)[0]


def residual_conv(dim: int, kind: ResidualConv) -> nn.Module:
    """What closes a group or the body: one 3x3, the three thinner ones of SwinIR-L, or nothing; [B, C, H, W] to the same."""
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
    """A group of SwinIR (RSTB) or HAT (RHAG): blocks in a row, a convolution, and the group's input added.

    Args:
        blocks: features to features; official checkpoints call it residual_group.
        dim: number of channels C.
        resi_connection: what stands after the blocks: `1conv`, `3conv` or `identity`.
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
    """Heads of each group, and the drop-path probability of each of its blocks, growing linearly from 0 over the whole depth.

    Raises:
        ValueError: not one number of heads for each group.
    """
    if len(depths) != len(num_heads):
        raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}: give one number of heads for each group")
    last = max(sum(depths) - 1, 1)
    rates = iter([drop_path_rate * i / last for i in range(sum(depths))])
    return [(heads, [next(rates) for _ in range(depth)]) for depth, heads in zip(depths, num_heads, strict=True)]


def pixel_shuffle_upsampler(channels: int, scale: int) -> nn.Sequential:
    """Convolution and PixelShuffle, by 2 as often as it takes, or once by 3; [B, C, H, W] to [B, C, scale*H, scale*W]."""
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
    """Weights of the linear layers from a truncated normal (0.02), biases 0, as all official networks here; for Module.apply."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
