"""Restormer in bands. Rows of features wait as [B, H, W, C]; its modules see them as [B, C, H, W] in the memory format channels_last."""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.banded.image_bands import Pixels, Restored
from irformer.banded.parked import Band, Parked
from irformer.banded.passes import Norm, Passes, in_channels_last, reach, whole_image_norm
from irformer.models import Restormer
from irformer.models.blocks import to_channels_first, to_channels_last
from irformer.models.restormer import RestormerBlock, TransposedAttention
from irformer.norms import residual
from irformer.norms.moments import widened


def restore_restormer(network: Restormer, lq: Tensor, passes: Passes) -> Tensor:
    """Apply Restormer: [B, C, H, W] to [B, C, scale*H, scale*W]."""
    pixels = Pixels(lq, network.scaling, network.size_multiple, network.scale)
    with ExitStack() as stack:
        levels = [stack.enter_context(passes.park(pixels.unit >> i, pixels.width >> i)) for i in range(4)]
        embed = in_channels_last(network.patch_embed)
        passes.fill(levels[0], lambda band: pixels.around(band, reach(network.patch_embed)).through(embed))
        _level(network.encoder_level1, levels[0], passes)
        downs = (network.down1_2, network.down2_3, network.down3_4)
        encoders = (network.encoder_level2, network.encoder_level3, network.latent)
        for i, (down, encoder) in enumerate(zip(downs, encoders, strict=True)):
            _downsample(down, levels[i], levels[i + 1], passes)
            _level(encoder, levels[i + 1], passes)

        _upsample(network.up4_3, levels[3], levels[2], levels[2], network.reduce_chan_level3, passes)
        _level(network.decoder_level3, levels[2], passes)
        _upsample(network.up3_2, levels[2], levels[1], levels[1], network.reduce_chan_level2, passes)
        _level(network.decoder_level2, levels[1], passes)
        # The first level has twice the channels after its skip connection.
        x = stack.enter_context(passes.park(pixels.unit, pixels.width))
        _upsample(network.up2_1, levels[1], levels[0], x, nn.Identity(), passes)
        levels[0].close()
        _level(network.decoder_level1, x, passes)
        _level(network.refinement, x, passes)
        return _reconstruct(network, pixels, x, lq, passes)


def _reconstruct(network: Restormer, pixels: Pixels, x: Parked, lq: Tensor, passes: Passes) -> Tensor:
    height, width = (network.scale * size for size in lq.shape[2:])
    restored = Restored(height, width, x.unit)

    def reconstruct(band: Band) -> Tensor:
        features, seen = x.around(band, reach(network.output)), pixels.around(band, reach(network.output))
        out = network.output(to_channels_first(features.values)) + to_channels_first(seen.values)
        return seen.cut(to_channels_last(network.scaling.undo(out)))

    passes.fill(restored, reconstruct)
    return restored.image


def _downsample(down: nn.Module, x: Parked, target: Parked, passes: Passes) -> None:
    # An even number of rows, because pairs of rows become one.
    margin = 2 * reach(down)
    passes.fill(target, lambda band: x.around(band, margin).through(in_channels_last(down)))


def _upsample(up: nn.Module, x: Parked, skip: Parked, target: Parked, reduce: nn.Module, passes: Passes) -> None:
    """Write the upsampled features x and the skip connection, concatenated and reduced."""

    def concatenate(band: Band) -> Tensor:
        upsampled = x.around(band, reach(up)).through(in_channels_last(up))
        return in_channels_last(reduce)(torch.cat([upsampled, skip.rows(band)], -1))

    passes.fill(target, concatenate)


def _level(blocks: nn.Module, x: Parked, passes: Passes) -> None:
    for block in blocks.children():
        assert isinstance(block, RestormerBlock)
        _attend(block, x, passes)
        _feed_forward(block, x, passes)


def _attend(block: RestormerBlock, x: Parked, passes: Passes) -> None:
    """Apply the transposed attention of a block in place: one pass for the products of queries and keys, and one for the values."""
    attention = block.attn
    normalize = whole_image_norm(block.norm1, [x], channels_first=True)
    probabilities = _probabilities(attention, normalize, x, passes)

    def values(band: Band) -> Tensor:
        margins = x.around(band, reach(attention.qkv_dwconv))
        y, scale = normalize(to_channels_first(margins.values))
        v = margins.cut(to_channels_last(_project(attention, y, 2, 3)))

        def attend(_: Tensor) -> Tensor:
            B, H, W, C = v.shape
            heads = to_channels_first(v).reshape(B, attention.heads, C // attention.heads, H * W)
            return attention.project_out((probabilities.to(v.dtype) @ heads).reshape(B, C, H, W))

        rows = to_channels_first(margins.cut(margins.values))
        return to_channels_last(residual(rows, lambda _: (y, scale), attend))

    passes.fill(x, values, keep=reach(attention.qkv_dwconv))


def _probabilities(attention: TransposedAttention, normalize: Norm, x: Parked, passes: Passes) -> Tensor:
    """Return the softmax of the scores between the channels of each head, [B, heads, C / heads, C / heads].

    In float32, one pass sums products and squares. With fewer digits, the network rounds queries and keys after dividing them by their
    norms, so that the products need a second pass to be rounded in the same way.
    """

    def heads(band: Band) -> Tensor:
        margins = x.around(band, reach(attention.qkv_dwconv))
        y, _ = normalize(to_channels_first(margins.values))
        both = margins.cut(to_channels_last(_project(attention, y, 0, 2)))
        B, H, W, C = both.shape
        return to_channels_first(both).reshape(B, 2, attention.heads, C // 2 // attention.heads, H * W)

    dtype = torch.float32

    def add(band: Band) -> None:
        nonlocal dtype
        both = heads(band)
        dtype = both.dtype
        wide = widened(both)
        squares.add(wide.square().sum(-1, keepdim=True))
        products.add(_products(wide))

    squares, products = _Sum(), _Sum()
    passes.scan(add)
    norms = squares.value.sqrt().to(dtype).clamp_min(1e-12)  # as in F.normalize
    if dtype.itemsize >= torch.float32.itemsize:
        norms_q, norms_k = norms.unbind(1)
        scores = products.value / norms_q / norms_k.mT
    else:
        rounded = _Sum()
        passes.scan(lambda band: rounded.add(_products(widened(heads(band) / norms))))
        scores = rounded.value
    return (scores.to(dtype) * attention.temperature).softmax(-1)


class _Sum:
    """A sum over bands in float64."""

    def __init__(self) -> None:
        self.value = torch.zeros((), dtype=torch.float64)

    def add(self, found: Tensor) -> None:
        """Add the sum over a band."""
        self.value = self.value + found.double()


def _products(both: Tensor) -> Tensor:
    """Return the products of queries and keys [B, 2, heads, c, n], without the rounding of autocast: [B, heads, c, c]."""
    q, k = both.unbind(1)
    with torch.autocast(both.device.type, enabled=False):
        return q @ k.mT


def _project(attention: TransposedAttention, y: Tensor, first: int, end: int) -> Tensor:
    """Return some of queries, keys and values (numbers 0, 1 and 2) of normalized features [B, C, H, W], concatenated."""
    C = y.shape[1]
    chosen = slice(first * C, end * C)
    projected = _convolve(attention.qkv, y, chosen, 1)
    return _convolve(attention.qkv_dwconv, projected, chosen, projected.shape[1])


def _convolve(layer: nn.Conv2d, x: Tensor, chosen: slice, groups: int) -> Tensor:
    """Apply some output channels of a convolution."""
    bias = None if layer.bias is None else layer.bias[chosen]
    return F.conv2d(x, layer.weight[chosen], bias, padding=layer.padding, groups=groups)


def _feed_forward(block: RestormerBlock, x: Parked, passes: Passes) -> None:
    """Apply the feed-forward network of a block in place."""
    normalize = whole_image_norm(block.norm2, [x], channels_first=True)
    margin = reach(block.ffn.dwconv)

    def apply(band: Band) -> Tensor:
        margins = x.around(band, margin)
        return margins.cut(to_channels_last(residual(to_channels_first(margins.values), normalize, block.ffn)))

    passes.fill(x, apply, keep=margin)
