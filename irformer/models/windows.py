"""Attention within windows, and the Swin block that SwinIR, HAT and DRCT share."""

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from irformer.norms import NormScheme, residual


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


def mlp(dim: int, ratio: float) -> nn.Module:
    """Two linear layers, fc1 and fc2, with GELU between them, on the last axis; `ratio` is hidden channels over `dim`.

    Raises:
        ValueError: the ratio leaves no hidden channels.
    """
    hidden = int(dim * ratio)
    if hidden < 1:
        raise ValueError(f"mlp_ratio: leaves no hidden channels of {dim}; choose a larger ratio")
    return Mlp(dim, hidden)


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
        self.mlp = mlp(dim, mlp_ratio)

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
