"""SwinIR (Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021, arXiv 2108.10257), with any norm.

Module names match the official code, so official checkpoints load directly once their derived buffers are dropped.
"""

from torch import Tensor, nn

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
)
from irformer.models.frame import WindowTransformer
from irformer.models.interface import TestPadding
from irformer.models.windows import SwinBlock
from irformer.norms import NormScheme


class SwinBlocks(nn.Module):
    """A sequence of Swin blocks, every second one with shifted windows; named residual_group in official checkpoints."""

    def __init__(self, blocks: list[SwinBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, C] to the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class SwinIR(WindowTransformer):
    """SwinIR: a convolution, groups of Swin blocks on features of one resolution, and an upsampler.

    Args:
        norm: the network's normalization.
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        embed_dim: feature channels C.
        depths: number of Swin blocks in each group.
        num_heads: attention heads in each group.
        window_size: attention window size in pixels: 8, or 7 for the official JPEG networks.
        mlp_ratio: ratio of MLP hidden channels to C.
        upsampler: `pixelshuffle` (classical), `pixelshuffledirect` (lightweight), `nearest+conv` (real-world x4), or empty (the
            network predicts a residual that is added to the input: denoising, JPEG). Scale 1 always means empty.
        resi_connection: last layer of each group and of the body: `1conv`, `3conv` (SwinIR-L) or `identity`.
        pixel_range: the network sees pixels in [0, pixel_range]; 1, or 255 for the official JPEG networks.
        qkv_bias: add a bias to queries, keys and values.
        drop_path_rate: stochastic depth rate of the last block, increasing linearly from 0 over the depth.
    """

    test_padding: TestPadding = "flip_always"
    block_names = ("layers.*.residual_group.blocks.*",)

    def __init__(
        self,
        norm: NormScheme,
        scale: Scale = 2,
        in_channels: Channels = 3,
        embed_dim: Count = 180,
        depths: Blocks = (6, 6, 6, 6, 6, 6),
        num_heads: Blocks = (6, 6, 6, 6, 6, 6),
        window_size: Window = 8,
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
                SwinBlock(embed_dim, heads, window_size, i % 2 * (window_size // 2), mlp_ratio, qkv_bias, drop_path, norm)
                for i, drop_path in enumerate(drop_paths)
            ]
            self.layers.append(ResidualGroup(SwinBlocks(blocks), embed_dim, resi_connection))
        self.apply(init_transformer)
