"""HAT in bands."""

from torch import Tensor, nn

from irformer.banded.parked import Band, Parked
from irformer.banded.passes import Passes, in_channels_last, reach, whole_image_norm
from irformer.banded.window_networks import add_convolution, apply_swin, restore_in_windows, two_branches
from irformer.models import HAT
from irformer.models.blocks import ResidualGroup
from irformer.models.hat import HybridBlock, HybridBlocks, OverlappingCrossAttention
from irformer.norms import residual


def restore_hat(network: HAT, lq: Tensor, passes: Passes) -> Tensor:
    """Apply HAT: [B, C, H, W] to [B, C, scale*H, scale*W]."""
    return restore_in_windows(network, lq, passes, _group)


def _group(layer: nn.Module, x: Parked, passes: Passes) -> None:
    assert isinstance(layer, ResidualGroup)
    assert isinstance(layer.residual_group, HybridBlocks)
    with passes.park(x.unit, x.width) as y:
        source = x
        for block in layer.residual_group.blocks:
            assert isinstance(block, HybridBlock)
            _apply_hybrid(block, source, y, passes)
            source = y
        _apply_overlapping(layer.residual_group.overlap_attn, y, passes)
        add_convolution(layer, y, x, passes)


def _apply_hybrid(block: HybridBlock, source: Parked, target: Parked, passes: Passes) -> None:
    """Apply a hybrid attention block.

    A first pass computes the convolutions of the channel attention block and their means. The second one weights the channels.
    """
    *convolutions, attention = block.conv_block.cab
    convolve = in_channels_last(nn.Sequential(*convolutions))
    normalize = whole_image_norm(block.norm1, [source])
    with passes.park(source.unit, source.width) as convolved:

        def fill(band: Band) -> Tensor:
            margins = source.around(band, reach(*convolutions))
            return margins.cut(convolve(normalize(margins.values)[0]))

        passes.fill(convolved, fill, measured=True)
        weights = _channel_weights(attention, convolved)

        def beside(band: Band) -> Tensor:
            return block.conv_scale * (convolved.rows(band, block.shift) * weights)

        apply_swin(block, [source], target, passes, beside=beside)


def _channel_weights(attention: nn.Module, convolved: Parked) -> Tensor:
    """Return the weights of the channels [B, 1, 1, C]."""
    _, *layers = attention.attention  # type: ignore[misc]  # without the average, which is over the whole image
    means = convolved.moments().mean.to(convolved.dtype).movedim(-1, 1)
    weights: Tensor = nn.Sequential(*layers)(means)
    return weights.movedim(1, -1)


def _apply_overlapping(block: OverlappingCrossAttention, x: Parked, passes: Passes) -> None:
    """Apply an overlapping cross-attention block in place."""
    normalize = whole_image_norm(block.norm1, [x])
    margin = (block.overlap_window - block.window) // 2

    def attend(band: Band) -> Tensor:
        margins = x.around(band, margin)
        # The norm reads the margins, too; the residual connection does not.
        y, scale = normalize(margins.values)
        return residual(margins.cut(margins.values), lambda _: (y, scale), lambda y: block.attend(y, margins.above, margins.below))

    two_branches(attend, block.norm2, block.mlp, x, passes, x, keep=margin)
