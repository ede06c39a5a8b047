"""Restormer (Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, arXiv 2111.09881).

With any norm. Module names match the official code except for the norms, which are renamed when official checkpoints are loaded.
Its blocks are convolutional, so features are [B, C, H, W] throughout.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from irformer.models.any_size import exporting
from irformer.models.blocks import Blocks, Channels, Count, InputScaling, Ratio, Scale, apply_group, pad_to_multiple
from irformer.models.interface import TestPadding
from irformer.norms import NormScheme, residual
from irformer.norms.moments import widened


class TransposedAttention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA, Sec. 3.1): attention between the channels of each head.

    Its cost is linear in the number of pixels. Queries and keys are L2-normalized over the pixels, and their products are multiplied by a
    learned temperature per head.

    Args:
        dim: number of channels C.
        heads: number of heads; divides dim.
        bias: add a bias to the convolutions.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def scale_invariant_weights(self) -> list[Tensor]:
        """Return the weights that compute queries and keys: these are normalized, so their scale has no effect."""
        channels = 2 * self.project_out.in_channels
        bias = self.qkv_dwconv.bias
        return [self.qkv_dwconv.weight[:channels], *([] if bias is None else [bias[:channels]])]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        B, C, H, W = x.shape
        q, k, v = self.qkv_dwconv(self.qkv(x)).reshape(B, 3, self.heads, C // self.heads, H * W).unbind(1)
        # Not scaled_dot_product_attention: its kernels are made for many short tokens. Here C / heads tokens have H * W elements, the
        # scores are a small matrix, and two matrix products were 25 % faster (CPU, 48 channels, 128 x 128 pixels).
        # In float16, normalize's own eps is 0: the norm of a channel that is zero would be divided by zero.
        eps = max(1e-12, torch.finfo(x.dtype).tiny)
        if exporting():  # sums over all pixels
            q, k = widened(q), widened(k)
        scores = F.normalize(q, dim=-1, eps=eps) @ F.normalize(k, dim=-1, eps=eps).transpose(-2, -1) * self.temperature
        return self.project_out((scores.softmax(-1).to(v.dtype) @ v).reshape(B, C, H, W))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN, Sec. 3.2): GELU of one half of the hidden channels gates the other half.

    Args:
        dim: number of channels C.
        hidden: number of hidden channels in each half.
        bias: add a bias to the convolutions.
    """

    def __init__(self, dim: int, hidden: int, bias: bool) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"ffn_expansion_factor: leaves no hidden channels of {dim}; choose a larger factor")
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class RestormerBlock(nn.Module):
    """Transformer block: transposed attention, then a gated feed-forward network, each a pre-norm residual branch.

    Args:
        dim: number of channels C.
        heads: number of attention heads.
        ffn_expansion_factor: ratio of hidden channels in the feed-forward network to C.
        bias: add a bias to the convolutions.
        norms: builds the two norms.
    """

    def __init__(self, dim: int, heads: int, ffn_expansion_factor: float, bias: bool, norms: NormScheme) -> None:
        super().__init__()
        self.norm1 = norms.block(dim, channels_first=True)
        self.attn = TransposedAttention(dim, heads, bias)
        self.norm2 = norms.block(dim, channels_first=True)
        self.ffn = GatedFeedForward(dim, int(dim * ffn_expansion_factor), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        x = residual(x, self.norm1, self.attn)
        return residual(x, self.norm2, self.ffn)


class PatchEmbed(nn.Module):
    """The first convolution, named patch_embed.proj as in official checkpoints.

    Args:
        in_channels: image channels.
        dim: number of channels C.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to [B, C, H, W]."""
        return self.proj(x)


class Downsample(nn.Module):
    """Halve the resolution and double the channels: a convolution to C / 2 channels, then PixelUnshuffle.

    Args:
        dim: number of input channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, 2 C, H / 2, W / 2]."""
        return self.body(x)


class Upsample(nn.Module):
    """Double the resolution and halve the channels: a convolution to 2 C channels, then PixelShuffle.

    Args:
        dim: number of input channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C / 2, 2 H, 2 W]."""
        return self.body(x)


class Restormer(nn.Module):
    """Restormer: a four-level encoder-decoder with skip connections, refinement blocks, and a global residual connection.

    It has no upsampler: for super-resolution, the input is upscaled first, as in SRCNN and VDSR (arXiv 1501.00092, 1511.04587).

    Only its blocks have norms: `ends` of the scheme is not used. The official network does not subtract the mean from its input; with
    `standardize_input`, the input is normalized by mean and standard deviation, as in the other networks.

    Args:
        norm: the network's normalization; ln_biasfree for the official denoising networks, ln for all other official ones.
        scale: upscaling factor; 1 as published. For larger factors, bicubic interpolation upscales the input first.
        in_channels: image channels, 3 (RGB) or 1.
        dim: feature channels C at full resolution; level i (from 0) has 2^i C.
        num_blocks: number of blocks at each of the four levels, the same in encoder and decoder.
        num_refinement_blocks: number of blocks after the decoder, at full resolution.
        heads: attention heads at each of the four levels.
        ffn_expansion_factor: ratio of hidden channels in the feed-forward networks to their input channels.
        bias: add a bias to the convolutions, except patch embedding, downsampling and upsampling.
    """

    channels_first = True
    channels_last = True
    test_padding: TestPadding = "reflect_min"

    def __init__(
        self,
        norm: NormScheme,
        scale: Scale = 1,
        in_channels: Channels = 3,
        dim: Count = 48,
        num_blocks: Blocks = (4, 6, 6, 8),
        num_refinement_blocks: Annotated[int, Interval(ge=0, le=64)] = 4,
        heads: Blocks = (1, 2, 4, 8),
        ffn_expansion_factor: Ratio = 2.66,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if scale < 1:
            raise ValueError(f"scale={scale}: expected 1 or more")
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError(f"num_blocks has {len(num_blocks)} levels and heads {len(heads)}: Restormer has 4, give one number for each")
        self.scale = scale
        self.in_channels = in_channels
        self.checkpointing = False
        self.size_multiple = 8 // math.gcd(8, scale)  # the output resolution is halved three times
        self.scaling = InputScaling(in_channels, 1.0, standardize=norm.standardize_input, center=norm.standardize_input)

        def level(count: int, channels: int, heads: int) -> nn.Sequential:
            return nn.Sequential(*[RestormerBlock(channels, heads, ffn_expansion_factor, bias, norm) for _ in range(count)])

        self.patch_embed = PatchEmbed(in_channels, dim)
        self.encoder_level1 = level(num_blocks[0], dim, heads[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = level(num_blocks[1], 2 * dim, heads[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = level(num_blocks[2], 4 * dim, heads[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = level(num_blocks[3], 8 * dim, heads[3])

        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(num_blocks[2], 4 * dim, heads[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(num_blocks[1], 2 * dim, heads[1])
        self.up2_1 = Upsample(2 * dim)
        # The first level has no channel reduction: it keeps the 2 C channels of the concatenated skip connection.
        self.decoder_level1 = level(num_blocks[0], 2 * dim, heads[0])
        self.refinement = level(num_refinement_blocks, 2 * dim, heads[0])
        self.output = nn.Conv2d(2 * dim, in_channels, 3, padding=1, bias=bias)

    @property
    def groups(self) -> dict[str, nn.Module]:
        """Levels by name, in order of depth; each outputs [B, C, H, W] with the channels and resolution of the level."""
        encoder = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
        decoder = ("decoder_level3", "decoder_level2", "decoder_level1", "refinement")
        return {name: self.get_submodule(name) for name in (*encoder, *decoder)}

    @property
    def group_channels(self) -> dict[str, int]:
        """Output channels of each level: C, 2 C, 4 C and 8 C in the encoder, 4 C and then 2 C in the decoder and the refinement."""
        dim = self.patch_embed.proj.out_channels
        return {name: times * dim for name, times in zip(self.groups, (1, 2, 4, 8, 4, 2, 2, 2), strict=True)}

    @property
    def layer_names(self) -> dict[str, tuple[str, ...]]:
        """Patterns of the names of blocks, attention, feed-forward networks (`mlp`) and norms."""
        blocks = tuple(f"{name}.*" for name in self.groups)
        return {"blocks": blocks, "attention": ("**.attn",), "mlp": ("**.ffn",), "norms": ("**.norm1", "**.norm2")}

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        H, W = lq.shape[2:]
        # In this memory format the norms need no transposed copies, and the convolutions keep it.
        pixels = self.scaling(pad_to_multiple(lq, self.size_multiple)).contiguous(memory_format=torch.channels_last)
        if self.scale > 1:
            pixels = F.interpolate(pixels, scale_factor=self.scale, mode="bicubic")
        out = self.output(self._body(self.patch_embed(pixels))) + pixels
        return self.scaling.undo(out)[:, :, : H * self.scale, : W * self.scale]

    def _body(self, x: Tensor) -> Tensor:
        """Apply encoder, decoder and refinement: [B, C, H, W] to [B, 2 C, H, W]."""
        skip1 = self._level(self.encoder_level1, x)
        skip2 = self._level(self.encoder_level2, self.down1_2(skip1))
        skip3 = self._level(self.encoder_level3, self.down2_3(skip2))
        x = self._level(self.latent, self.down3_4(skip3))
        x = self._level(self.decoder_level3, self.reduce_chan_level3(torch.cat([self.up4_3(x), skip3], 1)))
        x = self._level(self.decoder_level2, self.reduce_chan_level2(torch.cat([self.up3_2(x), skip2], 1)))
        x = self._level(self.decoder_level1, torch.cat([self.up2_1(x), skip1], 1))
        return self._level(self.refinement, x)

    def _level(self, blocks: nn.Module, x: Tensor) -> Tensor:
        return apply_group(blocks, x, self.checkpointing)
