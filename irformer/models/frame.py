"""The framework that SwinIR, HAT and DRCT share: everything except their groups of blocks."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.models.blocks import (
    InputScaling,
    PatchNorm,
    ResidualConv,
    Upsampling,
    apply_group,
    pad_to_multiple,
    pixel_shuffle_upsampler,
    residual_conv,
    to_channels_first,
    to_channels_last,
)
from irformer.models.interface import Stream, TestPadding
from irformer.norms import NormScheme

# Modules of the upsampler, by their official names: those that upscale, and all.
ENLARGING = frozenset({"upsample", "conv_up1", "conv_up2"})
UPSAMPLER = ENLARGING | {"conv_before_upsample", "conv_hr", "conv_last"}


class WindowTransformer(nn.Module):
    """A convolution, groups of blocks on features of one resolution, a convolution, and an upsampler.

    Subclasses append their groups to `layers`; each maps features [B, H, W, C] to the same shape. Shared modules have their official names.

    Args:
        norm: the network's normalization.
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        embed_dim: feature channels C.
        window_size: attention window size in pixels.
        upsampler: `pixelshuffle` (classical), `pixelshuffledirect` (lightweight), `nearest+conv` (real-world x4), or empty (the
            network predicts a residual that is added to the input: denoising, JPEG). At scale 1, every choice means empty, so
            `model=swinir task=denoise_color_25` is the official network for denoising.
        resi_connection: layer after the groups: `1conv`, `3conv` or `identity`.
        pixel_range: the network sees pixels in [0, pixel_range].

    Raises:
        ValueError: unknown choice, or the upsampler does not support the scale.
    """

    channels_first = False
    block_names: ClassVar[tuple[str, ...]]  # patterns of module names
    attention_names: ClassVar[tuple[str, ...]] = ("**.attn",)
    bias_names: ClassVar[tuple[str, ...]] = ("layers.*.conv.**.bias",)  # of the convolutions on the residual stream
    test_padding: TestPadding = "reflect_min"  # of HAT and DRCT, whose official test code uses BasicSR

    def __init__(
        self,
        norm: NormScheme,
        scale: int,
        in_channels: int,
        embed_dim: int,
        window_size: int,
        upsampler: Upsampling,
        resi_connection: ResidualConv,
        pixel_range: float,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = in_channels
        self.size_multiple = window_size
        self.window_size = window_size
        self.checkpointing = False
        self.upsampler: Upsampling = upsampler if scale > 1 else ""
        self.scaling = InputScaling(in_channels, pixel_range, norm.standardize_input)

        self.conv_first = nn.Conv2d(in_channels, embed_dim, 3, padding=1)
        self.patch_embed = PatchNorm(embed_dim, norm)
        self.layers = nn.ModuleList()
        self.norm = norm.end(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._build_upsampler(embed_dim)

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
        """Groups of blocks by name, in order of depth; each outputs [B, H, W, C]."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)}

    @property
    def group_channels(self) -> dict[str, int]:
        """Output channels C of each group."""
        return dict.fromkeys(self.groups, self.conv_first.out_channels)

    @property
    def layer_names(self) -> dict[str, tuple[str, ...]]:
        """Patterns of the names of blocks, attention, MLPs and norms, the ends' norms included."""
        norms = ("**.norm1", "**.norm2", "patch_embed.norm", "norm")
        return {"blocks": self.block_names, "attention": self.attention_names, "mlp": ("**.mlp",), "norms": norms}

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last group."""
        return self.norm

    @property
    def stream(self) -> Stream | None:
        """The residual stream from the patch embedding to the final norm."""
        return Stream(("**.norm1", "**.norm2"), "norm", ("patch_embed.norm.*",), ("**.attn.proj.*", "**.mlp.fc2.*"), self.bias_names)

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        H, W = lq.shape[2:]
        # In this memory format the convolutions give features that are contiguous as [B, H, W, C], so nothing below copies them.
        pixels = self.scaling(pad_to_multiple(lq, self.size_multiple)).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(pixels)
        out = self.reconstruct(to_channels_first(self._body(to_channels_last(shallow))), shallow, pixels)
        return out[:, :, : H * self.scale, : W * self.scale]

    def reconstruct(self, x: Tensor, shallow: Tensor, pixels: Tensor) -> Tensor:
        """Apply everything after the body, which is convolutional.

        Args:
            x: normalized output of the groups [B, C, H, W].
            shallow: output of the first convolution [B, C, H, W].
            pixels: normalized image [B, in_channels, H, W].

        Returns:
            The restored image [B, in_channels, scale*H, scale*W].
        """
        out = self._upsample(self.conv_after_body(x) + shallow)
        return self.scaling.undo(out + pixels if self.upsampler == "" else out)

    def _body(self, x: Tensor) -> Tensor:
        """Apply patch norm, groups and final norm: [B, H, W, C] to the same shape."""
        x = self.patch_embed(x)
        for layer in self.layers:
            x = apply_group(layer, x, self.checkpointing)
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
