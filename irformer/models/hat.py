"""HAT (Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023, arXiv 2205.04437), with any norm.

Module names match the official code, so official checkpoints load directly once their derived buffers are dropped. With i-LN in the
blocks and affine ends, it is the network of the official i-LN code (arXiv 2504.06629).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from timm.layers import trunc_normal_
from torch import Tensor, nn

from irformer.models.attention import attend, bias_of_pairs
from irformer.models.blocks import (
    Blocks,
    Channels,
    Count,
    PixelRange,
    Probability,
    Ratio,
    ResidualConv,
    ResidualGroup,
    Scale,
    Upsampling,
    Window,
    init_transformer,
    plan_groups,
    to_channels_first,
    to_channels_last,
)
from irformer.models.frame import WindowTransformer
from irformer.models.windows import SwinBlock, merge_windows, mlp, partition_windows
from irformer.norms import NormScheme, residual


class GlobalAverage(nn.Module):
    """Global average pooling in float32: [B, C, H, W] to [B, C, 1, 1].

    In float16, the sum over a large image overflows although the mean does not.
    """

    channels_first = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of each channel, in the dtype of x."""
        return x.mean((2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)


class ChannelAttention(nn.Module):
    """Channel attention: weights in (0, 1) for each channel, computed from all channel means (Zhang et al., RCAN, arXiv 1807.02758).

    Args:
        dim: number of channels C.
        squeeze_factor: ratio of C to the channels of the bottleneck; at most C.
    """

    channels_first = True

    def __init__(self, dim: int, squeeze_factor: int) -> None:
        super().__init__()
        squeezed = dim // squeeze_factor
        if squeezed == 0:
            raise ValueError(f"squeeze_factor={squeeze_factor}: leaves none of {dim} channels; choose at most {dim}")
        self.attention = nn.Sequential(
            GlobalAverage(), nn.Conv2d(dim, squeezed, 1), nn.ReLU(inplace=True), nn.Conv2d(squeezed, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x * self.attention(x)


class ChannelAttentionBlock(nn.Module):
    """Channel attention block (CAB): two 3x3 convolutions with a bottleneck, then channel attention (Sec. 3.2.2).

    Args:
        dim: number of channels C.
        compress_ratio: ratio of C to the channels between the convolutions; at most C.
        squeeze_factor: ratio of C to the channels of the bottleneck in the channel attention; at most C.
    """

    channels_first = True

    def __init__(self, dim: int, compress_ratio: int, squeeze_factor: int) -> None:
        super().__init__()
        compressed = dim // compress_ratio
        if compressed == 0:
            raise ValueError(f"compress_ratio={compress_ratio}: leaves none of {dim} channels; choose at most {dim}")
        self.cab = nn.Sequential(
            nn.Conv2d(dim, compressed, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(compressed, dim, 3, padding=1),
            ChannelAttention(dim, squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return self.cab(x)


class HybridBlock(SwinBlock):
    """Hybrid attention block (HAB): (shifted) window attention in parallel with channel attention, then an MLP.

    Both attentions read the same features, and their sum is one residual branch: a norm that rescales its branch rescales both, as in
    official i-LN.

    Args:
        dim: number of channels C.
        heads: number of attention heads.
        window: window size in tokens.
        shift: shift of the windows in tokens; 0 or window // 2.
        compress_ratio: ratio of C to the channels between the convolutions of the channel attention block.
        squeeze_factor: ratio of C to the channels of the bottleneck in its channel attention.
        conv_scale: factor of the channel attention block's output.
        mlp_ratio: ratio of MLP hidden channels to C.
        qkv_bias: add a bias to queries, keys and values.
        drop_path: stochastic depth probability of the window attention and of the MLP.
        norms: builds the two norms.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        compress_ratio: int,
        squeeze_factor: int,
        conv_scale: float,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        norms: NormScheme,
    ) -> None:
        super().__init__(dim, heads, window, shift, mlp_ratio, qkv_bias, drop_path, norms)
        self.conv_scale = conv_scale
        self.conv_block = ChannelAttentionBlock(dim, compress_ratio, squeeze_factor)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [B, H, W, C] to the same shape."""
        x = residual(x, self.norm1, lambda y: self.drop_path(self._attend(y)) + self.conv_scale * self._convolve(y))
        return residual(x, self.norm2, lambda y: self.drop_path(self.mlp(y)))

    def _convolve(self, y: Tensor) -> Tensor:
        return to_channels_last(self.conv_block(to_channels_first(y)))


def overlapping_windows(x: Tensor, window: int, size: int, above: int = 0, below: int = 0) -> Tensor:
    """Split [B, H, W, C] into overlapping windows of `size` tokens, one around each window: [B * windows, size * size, C].

    W, and H without the margins in x, are multiples of `window`, size - window is even, and the image is padded with zeros. Makes a
    single copy.

    Args:
        x: features.
        window: window size in tokens.
        size: size of the overlapping windows in tokens.
        above: rows of the margin that x contains at its top; the others are zero.
        below: rows of the margin that x contains at its bottom.
    """
    margin = (size - window) // 2
    x = F.pad(x, (0, 0, margin, margin, margin - above, margin - below))
    x = x.unfold(1, size, window).unfold(2, size, window)
    return x.permute(0, 1, 2, 4, 5, 3).contiguous().view(-1, size * size, x.shape[3])


def overlapping_positions(window: int, size: int) -> Tensor:
    """Return the row of the bias table for each pair of a token in a window and a token in the overlapping window around it.

    Returns:
        [window^2, size^2], values in 0 .. (window + size - 1)^2 - 1. Offsets in the official code start at 2 - size instead of 0, and
        negative rows index from the table's end. The modulus reproduces this layout of trained tables.
    """
    span = window + size - 1
    offset = torch.arange(size)[None, :] - torch.arange(window)[:, None] + window - size + 1
    rows = span * offset[:, None, :, None] + offset[None, :, None, :]
    return rows.reshape(window**2, size**2) % span**2


class OverlappingCrossAttention(nn.Module):
    """Overlapping cross-attention block (OCAB): queries from a window, keys and values from a larger one around it; then an MLP.

    Keys and values outside the image are zero and are not masked (Sec. 3.2.3).

    Args:
        dim: number of channels C.
        heads: number of attention heads; divides dim.
        window: window size in tokens.
        overlap_ratio: the size of the larger window is window + int(overlap_ratio * window).
        mlp_ratio: ratio of MLP hidden channels to C.
        qkv_bias: add a bias to queries, keys and values.
        norms: builds the two norms.

    Raises:
        ValueError: the larger window cannot be centered on the smaller one.
    """

    relative_position_index: Tensor

    def __init__(
        self, dim: int, heads: int, window: int, overlap_ratio: float, mlp_ratio: float, qkv_bias: bool, norms: NormScheme
    ) -> None:
        super().__init__()
        overlap = int(overlap_ratio * window)
        if overlap % 2 != 0:
            raise ValueError(f"overlap_ratio={overlap_ratio}: adds {overlap} tokens to a window of {window}; choose it for an even number")
        self.heads = heads
        self.window = window
        self.overlap_window = window + overlap
        self.norm1 = norms.block(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window + self.overlap_window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", overlapping_positions(window, self.overlap_window), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = norms.block(dim)
        self.mlp = mlp(dim, mlp_ratio)

    def position_biases(self) -> Tensor:
        """Return the learned biases by relative position: [heads, n, n] with n = window + overlap_window - 1, from top left."""
        span = self.window + self.overlap_window - 1
        offsets = torch.arange(2 - self.overlap_window, self.window + 1)
        rows = (span * offsets[:, None] + offsets).flatten() % span**2  # as in `overlapping_positions`
        return self.relative_position_bias_table[rows.to(self.relative_position_bias_table.device)].T.unflatten(1, (span, span))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        x = residual(x, self.norm1, self.attend)
        return residual(x, self.norm2, self.mlp)

    def attend(self, y: Tensor, above: int = 0, below: int = 0) -> Tensor:
        """Attend from each window to the larger one around it.

        Args:
            y: normalized features [B, H, W, C].
            above: first rows of y that only keys and values are computed from; at most the margin of the larger windows.
            below: last rows of y that only keys and values are computed from.

        Returns:
            [B, H - above - below, W, C].
        """
        _, rows, W, C = y.shape
        H = rows - above - below
        n, m, d = self.window**2, self.overlap_window**2, C // self.heads
        q, kv = self.qkv(y).split([C, 2 * C], dim=-1)
        q = partition_windows(q[:, above : above + H], self.window).view(-1, n, self.heads, d)
        k, v = overlapping_windows(kv, self.window, self.overlap_window, above, below).view(-1, m, 2, self.heads, d).unbind(2)
        bias = bias_of_pairs(self.relative_position_bias_table, self.relative_position_index)
        return self.proj(merge_windows(attend(q, k, v, bias).reshape(-1, n, C), self.window, H, W))


class HybridBlocks(nn.Module):
    """A sequence of hybrid attention blocks, every second one with shifted windows, followed by overlapping cross-attention."""

    def __init__(self, blocks: list[HybridBlock], overlap_attn: OverlappingCrossAttention) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.overlap_attn = overlap_attn

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        for block in self.blocks:
            x = block(x)
        return self.overlap_attn(x)


class HAT(WindowTransformer):
    """HAT, the Hybrid Attention Transformer: groups of hybrid attention blocks in the framework of SwinIR.

    Args:
        norm: the network's normalization.
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        embed_dim: feature channels C.
        depths: number of hybrid attention blocks in each group; one overlapping cross-attention block follows them.
        num_heads: attention heads in each group.
        window_size: attention window size in pixels.
        compress_ratio: ratio of C to the channels between the convolutions of a channel attention block.
        squeeze_factor: ratio of C to the channels of the bottleneck in its channel attention.
        conv_scale: factor of a channel attention block's output.
        overlap_ratio: size of the window of keys and values minus that of the queries, divided by window_size.
        mlp_ratio: ratio of MLP hidden channels to C.
        upsampler: `pixelshuffle` (the only official one), `pixelshuffledirect`, `nearest+conv`, or empty (the network predicts a residual
            that is added to the input: denoising, JPEG).
        resi_connection: last layer of each group and of the body: `1conv`, `3conv` or `identity`.
        pixel_range: the network sees pixels in [0, pixel_range]; 1 in all official networks.
        qkv_bias: add a bias to queries, keys and values.
        drop_path_rate: stochastic depth rate of the last hybrid attention block, increasing linearly from 0 over the depth.
    """

    block_names = ("layers.*.residual_group.blocks.*", "layers.*.residual_group.overlap_attn")
    attention_names = ("**.attn", "**.overlap_attn.proj")  # the cross-attention is a part of its block

    def __init__(
        self,
        norm: NormScheme,
        scale: Scale = 2,
        in_channels: Channels = 3,
        embed_dim: Count = 180,
        depths: Blocks = (6, 6, 6, 6, 6, 6),
        num_heads: Blocks = (6, 6, 6, 6, 6, 6),
        window_size: Window = 16,
        compress_ratio: Count = 3,
        squeeze_factor: Count = 30,
        conv_scale: float = 0.01,
        overlap_ratio: Annotated[float, Interval(ge=0, le=2)] = 0.5,
        mlp_ratio: Ratio = 2.0,
        upsampler: Upsampling = "pixelshuffle",
        resi_connection: ResidualConv = "1conv",
        pixel_range: PixelRange = 1.0,
        qkv_bias: bool = True,
        drop_path_rate: Probability = 0.1,
    ) -> None:
        super().__init__(norm, scale, in_channels, embed_dim, window_size, upsampler, resi_connection, pixel_range)
        for heads, drop_paths in plan_groups(depths, num_heads, drop_path_rate):
            blocks = [
                HybridBlock(
                    embed_dim,
                    heads,
                    window_size,
                    i % 2 * (window_size // 2),
                    compress_ratio,
                    squeeze_factor,
                    conv_scale,
                    mlp_ratio,
                    qkv_bias,
                    drop_path,
                    norm,
                )
                for i, drop_path in enumerate(drop_paths)
            ]
            overlap_attn = OverlappingCrossAttention(embed_dim, heads, window_size, overlap_ratio, mlp_ratio, qkv_bias, norm)
            self.layers.append(ResidualGroup(HybridBlocks(blocks, overlap_attn), embed_dim, resi_connection))
        self.apply(init_transformer)

    @property
    def stream(self) -> None:
        """None: the output of a channel attention is not proportional to any of its weights."""
        return
