"""A network that restores images of any size within a memory bound."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from irformer.banded.budget import parse_bytes
from irformer.banded.drct_passes import restore_drct
from irformer.banded.hat_passes import restore_hat
from irformer.banded.heap import Heap
from irformer.banded.passes import Passes
from irformer.banded.plan import Costs, plan, rehearse
from irformer.banded.restormer_passes import restore_restormer
from irformer.banded.window_networks import restore_swinir
from irformer.errors import UserError
from irformer.models import DRCT, HAT, Restormer, SwinIR
from irformer.models.interface import multiple_of, padding_of

# By exact class: a subclass may compute something else.
_RESTORE: dict[type[nn.Module], Callable[[Any, Tensor, Passes], Tensor]] = {
    SwinIR: restore_swinir,
    HAT: restore_hat,
    DRCT: restore_drct,
    Restormer: restore_restormer,
}


class BoundedNetwork(nn.Module):
    """Computes what a network computes, in bands of rows, so that the memory for features stays under a bound.

    Unlike tiles, bands do not change the result: convolutions and attention read the rows around a band, and the statistics of norms and
    the means and products of channel attention are those of the whole image. Between the passes over the image, its features wait in
    memory, or in temporary files if they do not fit there.

    The bound is for everything that is allocated during a call: features, intermediate results, and the restored image. The weights and
    the input exist before. On a GPU, it is for the memory of the GPU. A call computes no gradients.

    Args:
        network: SwinIR, HAT, DRCT or Restormer, in evaluation mode.
        memory: the bound: bytes, an amount such as `2GB` or `500MB`, or `auto` for 80 % of the memory that is free when an image arrives.

    Raises:
        UserError: another network, or not an amount of memory.
    """

    def __init__(self, network: nn.Module, memory: str | int = "auto") -> None:
        super().__init__()
        if type(network) not in _RESTORE:
            raise UserError(
                f"{type(network).__name__} cannot be computed in bands; expected {', '.join(known.__name__ for known in _RESTORE)}; "
                "use it without a memory bound"
            )
        self.network = network
        self.memory = parse_bytes(memory)
        self.scale = network.scale
        self.in_channels = network.in_channels
        self.size_multiple = multiple_of(network)
        self.test_padding = padding_of(network)
        self._costs: dict[tuple[Any, ...], Costs] = {}

    @torch.no_grad()
    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W.

        Raises:
            UserError: the network is in training mode or has forward hooks, or the bound is too small for the image; the message names the
                smallest possible bound.
        """
        if self.network.training:
            raise UserError("the network is in training mode: call network.eval() first; training is not possible in bands")
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.network.modules()):
            raise UserError(
                "the network has forward hooks, which a computation in bands would skip (float16 with a float32 stream uses some, too); "
                "remove them, or use the network without a memory bound"
            )
        measured = any(getattr(module, "shared_axes", lambda _: [])(4) for module in self.network.modules())
        costs = self._costs_for(lq, measured)
        found = plan(costs, lq, self.size_multiple, self.memory)
        units = -(-lq.shape[2] // self.size_multiple)
        heap = Heap(found.room) if lq.device.type == "cpu" else None
        return self._restore(lq, Passes(len(lq), units, found.steps, found.store_on, lq.device, measured, heap))

    def _costs_for(self, lq: Tensor, measured: bool) -> Costs:
        kind = lq.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (lq.shape[:2], lq.dtype, lq.device, autocast, next(self.network.parameters()).dtype)
        if key not in self._costs:
            self._costs[key] = rehearse(self._restore, lq, self.size_multiple, measured)
        return self._costs[key]

    def _restore(self, lq: Tensor, passes: Passes) -> Tensor:
        return _RESTORE[type(self.network)](self.network, lq, passes)
