"""Small device tensors that the host reads later, and reductions over processes, neither of which stops the device."""

from typing import Literal

import torch
from torch import Tensor
from torch.distributed import ReduceOp

_OPERATIONS = {"sum": ReduceOp.SUM, "mean": ReduceOp.SUM, "max": ReduceOp.MAX}


class HostCopy:
    """A copy of a tensor's values to the host.

    The copy is queued behind the work that computes the values. Reading it waits for that work only, not for what is queued later, so a
    value that is read one step later leaves the device its next step to work on. `Tensor.item()` would wait for an empty queue.

    Args:
        values: a small tensor of numbers.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._values = values.detach().clone()
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values.detach(), non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """Return the flattened values, after waiting until the device has computed them."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.flatten().tolist()


def over_processes(values: Tensor, operation: Literal["sum", "mean", "max"]) -> Tensor:
    """Return the element-wise sum, mean or maximum of a tensor over all processes; all of them must call this.

    Lightning's `Strategy.reduce` precedes the reduction with a barrier, for which the host waits.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    values = values.detach().clone()
    torch.distributed.all_reduce(values, op=_OPERATIONS[operation])
    return values / torch.distributed.get_world_size() if operation == "mean" else values
