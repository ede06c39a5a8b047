"""SwinIR in bands, and what HAT and DRCT share with it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from irformer.banded.image_bands import Pixels, Restored
from irformer.banded.parked import Band, Parked
from irformer.banded.passes import Passes, in_channels_last, reach, shares_statistics, whole_image_norm
from irformer.models.blocks import ResidualGroup, to_channels_first, to_channels_last
from irformer.models.frame import UPSAMPLER, WindowTransformer
from irformer.models.windows import SwinBlock, merge_windows, partition_windows
from irformer.norms import residual

Group = Callable[[nn.Module, Parked, Passes], None]
# Maps the output of a block to what is written. Its second argument returns the same rows of other features.
Finish = Callable[[Tensor, Callable[[Parked], Tensor]], Tensor]


def restore_swinir(network: WindowTransformer, lq: Tensor, passes: Passes) -> Tensor:
    """Apply SwinIR: [B, C, H, W] to [B, C, scale*H, scale*W]."""
    return restore_in_windows(network, lq, passes, _swin_group)


def restore_in_windows(network: WindowTransformer, lq: Tensor, passes: Passes, group: Group) -> Tensor:
    """Apply a network of the common framework.

    Args:
        network: the network.
        lq: images [B, C, H, W] in [0, 1].
        passes: runs the passes.
        group: applies a group to features, in place.

    Returns:
        [B, C, scale*H, scale*W].
    """
    pixels = Pixels(lq, network.scaling, network.size_multiple)
    with passes.park(pixels.unit, pixels.width) as x:
        _embed(network, pixels, x, passes)
        for layer in network.layers:
            group(layer, x, passes)
        return _reconstruct(network, pixels, x, lq, passes)


def _embed(network: WindowTransformer, pixels: Pixels, x: Parked, passes: Passes) -> None:
    """Write the features after the first convolution and its norm."""
    norm = network.patch_embed.norm
    convolution = in_channels_last(network.conv_first)

    def shallow(band: Band) -> Tensor:
        return pixels.around(band, reach(network.conv_first)).through(convolution)

    if shares_statistics(norm):
        passes.fill(x, shallow)
        normalize = whole_image_norm(norm, [x])
        passes.fill(x, lambda band: normalize(x.rows(band))[0])
    else:
        passes.fill(x, lambda band: norm(shallow(band))[0])


def _reconstruct(network: WindowTransformer, pixels: Pixels, x: Parked, lq: Tensor, passes: Passes) -> Tensor:
    """Return the restored image. The output of the first convolution is cheaper to compute again than to keep."""
    upsampler = [module for name, module in network.named_children() if name in UPSAMPLER]
    margin = reach(network.conv_first, network.conv_after_body, *upsampler)
    normalize = whole_image_norm(network.norm, [x])
    height, width = (network.scale * size for size in lq.shape[2:])
    restored = Restored(height, width, network.scale * x.unit)

    def reconstruct(band: Band) -> Tensor:
        features, seen = x.around(band, margin), pixels.around(band, margin)
        image = to_channels_first(seen.values)
        y = to_channels_first(normalize(features.values)[0])
        return seen.cut(to_channels_last(network.reconstruct(y, network.conv_first(image), image)))

    passes.fill(restored, reconstruct)
    return restored.image


def _swin_group(layer: nn.Module, x: Parked, passes: Passes) -> None:
    assert isinstance(layer, ResidualGroup)
    with passes.park(x.unit, x.width) as y:
        source = x
        for block in layer.residual_group.blocks:  # type: ignore[union-attr]
            apply_swin(block, [source], y, passes)
            source = y
        add_convolution(layer, y, x, passes)


def add_convolution(layer: ResidualGroup, y: Parked, x: Parked, passes: Passes) -> None:
    """Add the convolution of a group's features y to its input x."""
    convolution = in_channels_last(layer.conv)
    passes.fill(x, lambda band: x.rows(band) + y.around(band, reach(layer.conv)).through(convolution))


def apply_swin(
    block: SwinBlock,
    sources: Sequence[Parked],
    target: Parked,
    passes: Passes,
    between: Parked | None = None,
    finish: Finish = lambda y, _: y,
    beside: Callable[[Band], Tensor] | None = None,
) -> None:
    """Apply a Swin block.

    Args:
        block: the block.
        sources: its input, in parts of which the channels are concatenated.
        target: where its output is written.
        passes: runs the passes.
        between: where features wait for the statistics of the second norm, if it has any; by default, the target.
        finish: applied to each token of the output before it is written.
        beside: what is added to the output of the attention, for the shifted rows of a band.
    """
    norm = whole_image_norm(block.norm1, sources)
    shift = block.shift

    def attend(band: Band) -> Tensor:
        parts = [source.rows(band, shift) for source in sources]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return residual(x, norm, lambda y: branch(y, band))

    def branch(y: Tensor, band: Band) -> Tensor:
        attended = _attend(block, y, band.at_bottom)
        return attended if beside is None else attended + beside(band)

    two_branches(attend, block.norm2, block.mlp, target, passes, target if between is None else between, finish, shift)


def two_branches(
    first: Callable[[Band], Tensor],
    norm: nn.Module,
    branch: nn.Module,
    target: Parked,
    passes: Passes,
    between: Parked,
    finish: Finish = lambda y, _: y,
    shift: int = 0,
    keep: int = 0,
) -> None:
    """Apply a residual branch and then a second one that reads single tokens, in one pass if the norm between them allows it.

    Args:
        first: returns the rows of a band after the first branch.
        norm: the norm of the second branch.
        branch: the second branch.
        target: where the output is written.
        passes: runs the passes.
        between: where features wait for the statistics of the norm, if it has any.
        finish: applied to each token of the output before it is written.
        shift: as in `Parked.rows`, of the rows that `first` returns.
        keep: as in `Passes.fill`, for `first`.
    """
    if not shares_statistics(norm):

        def both(band: Band) -> Tensor:
            return finish(residual(first(band), norm, branch), lambda other: other.rows(band, shift))

        passes.fill(target, both, shift, keep)
        return
    passes.fill(between, first, shift, keep)
    normalize = whole_image_norm(norm, [between])
    passes.fill(target, lambda band: finish(residual(between.rows(band), normalize, branch), lambda other: other.rows(band)))


def _attend(block: SwinBlock, y: Tensor, at_bottom: bool) -> Tensor:
    """Apply window attention to rows of windows whose rows are shifted already: [B, H, W, C] to the same shape."""
    _, H, W, _ = y.shape
    if block.shift > 0:
        y = torch.roll(y, -block.shift, 2)
    y = merge_windows(block.attn(partition_windows(y, block.window), at_bottom), block.window, H, W)
    return torch.roll(y, block.shift, 2) if block.shift > 0 else y
