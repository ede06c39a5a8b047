"""DRCT in bands."""

from collections.abc import Callable
from contextlib import ExitStack

import torch.nn.functional as F
from torch import Tensor, nn

from irformer.banded.parked import Parked
from irformer.banded.passes import Passes, in_channels_last
from irformer.banded.window_networks import Finish, apply_swin, restore_in_windows
from irformer.models import DRCT
from irformer.models.drct import BLOCKS, ResidualDenseGroup
from irformer.models.windows import SwinBlock


def restore_drct(network: DRCT, lq: Tensor, passes: Passes) -> Tensor:
    """Apply DRCT: [B, C, H, W] to [B, C, scale*H, scale*W]."""
    return restore_in_windows(network, lq, passes, _group)


def _group(layer: nn.Module, x: Parked, passes: Passes) -> None:
    assert isinstance(layer, ResidualDenseGroup)
    parts = [x]
    with ExitStack() as stack:
        for i in range(1, BLOCKS + 1):
            block = layer.get_submodule(f"swin{i}")
            assert isinstance(block, SwinBlock)
            adjust = in_channels_last(layer.get_submodule(f"adjust{i}"))
            last = i == BLOCKS
            target = x if last else stack.enter_context(passes.park(x.unit, x.width))
            with passes.park(x.unit, x.width) as between:
                apply_swin(block, parts, target, passes, between, _residual(adjust, x) if last else _grown(adjust))
            parts.append(target)


def _grown(adjust: Callable[[Tensor], Tensor]) -> Finish:
    return lambda y, _: F.leaky_relu(adjust(y), 0.2)


def _residual(adjust: Callable[[Tensor], Tensor], x: Parked) -> Finish:
    return lambda y, rows: rows(x) + 0.2 * adjust(y)
