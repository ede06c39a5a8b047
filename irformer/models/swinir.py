"""SwinIR (Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021, arXiv 2108.10257), with any norm.

Modules are named as in the official code, so that its checkpoints fit as they are once their derived buffers are dropped.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from irformer.models.layers import (
    InputScaling,
    Mlp,
    PatchNorm,
    Upsampling,
    WindowAttention,
    init_transformer,
    merge_windows,
    pad_to_multiple,
    partition_windows,
    pixel_shuffle_upsampler,
    residual_conv,
    shift_mask,
    to_channels_first,
    to_channels_last,
)
from irformer.norms import NormScheme, residual


class SwinBlock(nn.Module):
    """A Swin Transformer layer (STL): attention within (shifted) windows, then the MLP, each a residual branch behind its norm.

    Args:
        dim: number of channels C.
        heads: number of attention heads.
        window: side of a window in tokens.
        shift: how far the windows are shifted, in tokens; 0 or window // 2.
        mlp_ratio: hidden channels of the MLP over C.
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
        self.attn = WindowAttention(dim, window, heads, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norms.block(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map features [B, H, W, C] to the same shape; mask [windows, n, n] is used where the windows are shifted."""
        x = residual(x, self.norm1, lambda y: self.drop_path(self._attend(y, mask)))
        return residual(x, self.norm2, lambda y: self.drop_path(self.mlp(y)))

    def _attend(self, y: Tensor, mask: Tensor) -> Tensor:
        _, H, W, _ = y.shape
        if self.shift == 0:
            return merge_windows(self.attn(partition_windows(y, self.window), None), self.window, H, W)
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = merge_windows(self.attn(partition_windows(y, self.window), mask), self.window, H, W)
        return torch.roll(y, (self.shift, self.shift), (1, 2))


class SwinBlocks(nn.Module):
    """Swin blocks in a row, every second with shifted windows; official checkpoints call it residual_group."""

    def __init__(self, blocks: list[SwinBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        for block in self.blocks:
            x = block(x, mask)
        return x


class ResidualSwinGroup(nn.Module):
    """A residual Swin Transformer block (RSTB): Swin blocks, a convolution, and the input added.

    Args:
        blocks: the Swin blocks of the group.
        dim: number of channels C.
        resi_connection: `1conv` or `3conv`.
    """

    def __init__(self, blocks: list[SwinBlock], dim: int, resi_connection: Literal["1conv", "3conv"]) -> None:
        super().__init__()
        self.residual_group = SwinBlocks(blocks)
        self.conv = residual_conv(dim, resi_connection)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        y = self.residual_group(x, mask)
        return x + to_channels_last(self.conv(to_channels_first(y)))


class SwinIR(nn.Module):
    """SwinIR: a convolution, groups of Swin blocks on features of one resolution, and an upsampler.

    Args:
        norm: the network's normalization.
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        embed_dim: feature channels C.
        depths: number of Swin blocks in each group.
        num_heads: attention heads in each group.
        window_size: side of an attention window in pixels (8; 7 for the official JPEG networks).
        mlp_ratio: hidden channels of the MLP over C.
        upsampler: `pixelshuffle` (classical), `pixelshuffledirect` (lightweight), `nearest+conv` (real-world x4), or empty (the output
            is the input plus a residual: denoising, JPEG).
        resi_connection: `1conv` or `3conv` (SwinIR-L).
        pixel_range: 1, or 255 for the official JPEG networks.
        qkv_bias: queries, keys and values carry biases.
        drop_path_rate: drop-path probability of the last block, growing linearly from 0 over the depth.
    """

    channels_first = False

    def __init__(
        self,
        norm: NormScheme,
        scale: int = 2,
        in_channels: int = 3,
        embed_dim: int = 180,
        depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6),
        num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        upsampler: Upsampling = "pixelshuffle",
        resi_connection: Literal["1conv", "3conv"] = "1conv",
        pixel_range: float = 1.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}: give one number of heads for each group")
        self.scale = scale
        self.in_channels = in_channels
        self.size_multiple = window_size
        self.window_size = window_size
        self.upsampler = upsampler
        self.scaling = InputScaling(in_channels, pixel_range, norm.standardize_input)

        self.conv_first = nn.Conv2d(in_channels, embed_dim, 3, padding=1)
        self.patch_embed = PatchNorm(embed_dim, norm)
        drop_path = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.layers = nn.ModuleList()
        for depth, heads in zip(depths, num_heads, strict=True):
            shifts = [0 if i % 2 == 0 else window_size // 2 for i in range(depth)]
            blocks = [SwinBlock(embed_dim, heads, window_size, s, mlp_ratio, qkv_bias, next(drop_path), norm) for s in shifts]
            self.layers.append(ResidualSwinGroup(blocks, embed_dim, resi_connection))
        self.norm = norm.end(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._build_upsampler(embed_dim)
        self.apply(init_transformer)

    def _build_upsampler(self, dim: int, features: int = 64) -> None:
        out = self.in_channels
        if self.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, features, 3, padding=1), nn.LeakyReLU(inplace=True))
            self.upsample = pixel_shuffle_upsampler(features, self.scale)
            self.conv_last = nn.Conv2d(features, out, 3, padding=1)
        elif self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(dim, self.scale**2 * out, 3, padding=1), nn.PixelShuffle(self.scale))
        elif self.upsampler == "nearest+conv":
            if self.scale not in (2, 4):
                raise ValueError(f"scale={self.scale}: the nearest+conv upsampler takes 2 or 4")
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, features, 3, padding=1), nn.LeakyReLU(inplace=True))
            self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
            if self.scale == 4:
                self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
            self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
            self.conv_last = nn.Conv2d(features, out, 3, padding=1)
        elif self.upsampler == "":
            if self.scale != 1:
                raise ValueError(f"scale={self.scale}: a network without an upsampler takes scale 1")
            self.conv_last = nn.Conv2d(dim, out, 3, padding=1)
        else:
            raise ValueError(f"upsampler={self.upsampler}: expected pixelshuffle, pixelshuffledirect, nearest+conv or empty")

    @property
    def groups(self) -> dict[str, nn.Module]:
        """The groups of blocks by name, in the order of depth; the output of each is [B, H, W, C]."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)}

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        H, W = lq.shape[2:]
        pixels = self.scaling(pad_to_multiple(lq, self.size_multiple))
        shallow = self.conv_first(pixels)
        deep = self.conv_after_body(to_channels_first(self._body(to_channels_last(shallow)))) + shallow
        out = self._upsample(deep)
        if self.upsampler == "":
            out = out + pixels
        return self.scaling.undo(out)[:, :, : H * self.scale, : W * self.scale]

    def _body(self, x: Tensor) -> Tensor:
        """Patch norm, groups and final norm, [B, H, W, C] to the same shape; the shift mask is made once for all blocks."""
        _, H, W, _ = x.shape
        mask = shift_mask(H, W, self.window_size, self.window_size // 2, x.device)
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)[0]

    def _upsample(self, x: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(x)))
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        if self.upsampler == "nearest+conv":
            x = self.conv_before_upsample(x)
            for conv in [self.conv_up1, self.conv_up2] if self.scale == 4 else [self.conv_up1]:
                x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return self.conv_last(x)
