"""Window attention, and the Swin block that SwinIR, HAT and DRCT share."""

import torch
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from irformer.models.attention import Borders, attend, bias_of_pairs
from irformer.norms import NormScheme, residual


def partition_windows(x: Tensor, window: int) -> Tensor:
    """Split [B, H, W, C] into windows: [B, H / window, W / window, window^2, C]. H and W are multiples of `window`."""
    B, H, W, C = x.shape
    x = x.view(B, H // window, window, W // window, window, C)
    # Not reshape, which asks whether the windows are contiguous already: for an exported graph, the answer depends on the size.
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(B, H // window, W // window, window * window, C)


def merge_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Reverse `partition_windows`: [..., window^2, C] to [B, height, width, C]."""
    C = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, C)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, C)


def shifted_window_masks(window: int, shift: int) -> Tensor:
    """Return the pairs of tokens in shifted border windows that are not adjacent in the image: [3, window^2, window^2], bool.

    The cyclic shift moves tokens from the opposite side of the image into the last `shift` columns of the rightmost windows and the last
    `shift` rows of the bottom windows. The masks are for windows on the right, at the bottom, and in the corner; other windows need none.
    """
    axis = torch.arange(window) >= window - shift
    down, right = (grid.flatten().long() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    regions = torch.stack([right, down, 2 * down + right])
    return regions[:, :, None] != regions[:, None, :]


def relative_positions(window: int) -> Tensor:
    """Return the row of the bias table for each pair of tokens in a window: [window^2, window^2], values in 0 .. (2 window - 1)^2 - 1."""
    axis = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position (Liu et al., Swin, arXiv 2103.14030).

    Args:
        dim: number of channels C.
        window: window size in tokens.
        heads: number of heads; divides dim.
        qkv_bias: add a bias to queries, keys and values.
        shift: cyclic shift of the input windows in tokens; tokens from opposite sides of the image do not attend to each other.

    Raises:
        ValueError: `heads` does not divide `dim`.
    """

    relative_position_index: Tensor
    masks: Tensor

    def __init__(self, dim: int, window: int, heads: int, qkv_bias: bool = True, shift: int = 0) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"num_heads: {heads} heads do not divide {dim} channels; choose a divisor")
        self.window = window
        self.heads = heads
        self.shift = shift
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)
        if shift > 0:
            self.register_buffer("masks", shifted_window_masks(window, shift), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_biases(self) -> Tensor:
        """Return the learned biases by relative position: [heads, n, n] with n = 2 window - 1, from top left."""
        span = 2 * self.window - 1
        return self.relative_position_bias_table.T.unflatten(1, (span, span))

    def forward(self, windows: Tensor, at_bottom: bool = True) -> Tensor:
        """Attend within each window.

        Args:
            windows: [B, rows, columns, n, C] with n = window^2.
            at_bottom: whether the last row of windows is that of the image, which a shift splits.

        Returns:
            Features of the same shape.
        """
        B, rows, columns, n, C = windows.shape
        q, k, v = self.qkv(windows).view(B * rows * columns, n, 3, self.heads, C // self.heads).unbind(2)
        bias = bias_of_pairs(self.relative_position_bias_table, self.relative_position_index)
        attended = attend(q, k, v, bias, self._borders(rows, columns, at_bottom))
        return self.proj(attended.reshape(windows.shape))

    def _borders(self, rows: int, columns: int, at_bottom: bool) -> Borders | None:
        if self.shift == 0:
            return None
        right = self.masks[:1]
        return Borders(rows, columns, self.masks if at_bottom else torch.cat([right, torch.zeros_like(right), right]))


def mlp(dim: int, ratio: float) -> nn.Module:
    """Build an MLP on the last axis: linear layers fc1 and fc2 with GELU between them, and int(dim * ratio) hidden channels.

    Raises:
        ValueError: the ratio leaves no hidden channels.
    """
    hidden = int(dim * ratio)
    if hidden < 1:
        raise ValueError(f"mlp_ratio: leaves no hidden channels of {dim}; choose a larger ratio")
    return Mlp(dim, hidden)


class SwinBlock(nn.Module):
    """Swin Transformer layer (STL): (shifted) window attention, then an MLP, each a pre-norm residual branch.

    Args:
        dim: number of channels C.
        heads: number of attention heads.
        window: window size in tokens.
        shift: shift of the windows in tokens; 0 or window // 2.
        mlp_ratio: ratio of MLP hidden channels to C.
        qkv_bias: add a bias to queries, keys and values.
        drop_path: stochastic depth probability of the residual branches.
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
