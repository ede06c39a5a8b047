"""DRCT (Hsu et al., "DRCT: Saving Image Super-Resolution away from Information Bottleneck", CVPRW 2024, arXiv 2404.00722), with any norm.

Module names match the official code, so official checkpoints load directly once their derived buffers are dropped.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.models.blocks import (
    Blocks,
    Channels,
    Count,
    PixelRange,
    Probability,
    Ratio,
    ResidualConv,
    Scale,
    Upsampling,
    Window,
    init_transformer,
    plan_groups,
    to_channels_first,
    to_channels_last,
)
from irformer.models.frame import WindowTransformer
from irformer.models.windows import SwinBlock
from irformer.norms import NormScheme

BLOCKS = 5  # Swin blocks per group


class ResidualDenseGroup(nn.Module):
    """A residual dense group (RDG): five densely connected Swin blocks.

    The i-th block (from 0) reads the group's input and the outputs of all earlier blocks, dim + i * growth_channels channels. A 1x1
    convolution reduces its output to growth_channels; the last one to dim, and 0.2 times its output is added to the group's input. The last
    two blocks have an MLP ratio of 1.

    Args:
        dim: number of channels C.
        growth_channels: number of channels that each block adds.
        heads: attention heads of the first block. Wider blocks use heads - width % heads, as in the official code; the result must
            divide their width.
        window: window size in tokens; the second and fourth block shift windows by half of it.
        mlp_ratio: ratio of MLP hidden channels to block channels, in the first three blocks.
        qkv_bias: add a bias to queries, keys and values.
        drop_path: stochastic depth probability of the residual branches, the same for all blocks of the group.
        norms: builds the norms of the blocks.
    """

    def __init__(
        self,
        dim: int,
        growth_channels: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        norms: NormScheme,
    ) -> None:
        super().__init__()
        for i in range(BLOCKS):
            width = dim + i * growth_channels
            shift = i % 2 * (window // 2)
            ratio = mlp_ratio if i < 3 else 1.0
            block_heads = heads if i == 0 else heads - width % heads
            swin = SwinBlock(width, block_heads, window, shift, ratio, qkv_bias, drop_path, norms)
            self.add_module(f"swin{i + 1}", swin)
            self.add_module(f"adjust{i + 1}", nn.Conv2d(width, growth_channels if i < BLOCKS - 1 else dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        features = x
        for i in range(1, BLOCKS):
            grown = F.leaky_relu(self._stage(i, features), 0.2)
            features = torch.cat((features, grown), -1)
        return x + 0.2 * self._stage(BLOCKS, features)

    def _stage(self, i: int, features: Tensor) -> Tensor:
        """Apply block i (from 1) and the convolution after it: [B, H, W, C_in] to [B, H, W, C_out]."""
        y = self.get_submodule(f"swin{i}")(features)
        return to_channels_last(self.get_submodule(f"adjust{i}")(to_channels_first(y)))


class DRCT(WindowTransformer):
    """DRCT, the Dense-Residual-Connected Transformer: residual dense groups in the framework of SwinIR.

    Each group has five Swin blocks; `num_heads` determines the number of groups. The official `depths` says six per group and affects
    only the drop path, so it is not an argument here.

    Args:
        norm: the network's normalization.
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        embed_dim: feature channels C.
        growth_channels: number of channels that each block of a group adds; `gc` in the official code.
        num_heads: attention heads of the first block in each group; see ResidualDenseGroup for the others.
        window_size: attention window size in pixels.
        mlp_ratio: ratio of MLP hidden channels to block channels.
        upsampler: `pixelshuffle` (the only official one), `pixelshuffledirect`, `nearest+conv`, or empty (the network predicts a residual
            that is added to the input: denoising, JPEG).
        resi_connection: last layer of the body: `1conv`, `3conv` or `identity`.
        pixel_range: the network sees pixels in [0, pixel_range]; 1 in all official networks.
        qkv_bias: add a bias to queries, keys and values.
        drop_path_rate: stochastic depth rate at the end of the network, increasing linearly from 0 over the depth.
    """

    block_names = ("layers.*.swin*",)
    bias_names = ("layers.*.adjust*.bias",)

    def __init__(
        self,
        norm: NormScheme,
        scale: Scale = 2,
        in_channels: Channels = 3,
        embed_dim: Count = 180,
        growth_channels: Count = 32,
        num_heads: Blocks = (6, 6, 6, 6, 6, 6),
        window_size: Window = 16,
        mlp_ratio: Ratio = 2.0,
        upsampler: Upsampling = "pixelshuffle",
        resi_connection: ResidualConv = "1conv",
        pixel_range: PixelRange = 1.0,
        qkv_bias: bool = True,
        drop_path_rate: Probability = 0.1,
    ) -> None:
        super().__init__(norm, scale, in_channels, embed_dim, window_size, upsampler, resi_connection, pixel_range)
        # As in the official code, the drop path increases over six blocks per group, and a group uses the probability of its first.
        for heads, drop_paths in plan_groups((6,) * len(num_heads), num_heads, drop_path_rate):
            group = ResidualDenseGroup(embed_dim, growth_channels, heads, window_size, mlp_ratio, qkv_bias, drop_paths[0], norm)
            self.layers.append(group)
        self.apply(init_transformer)
