"""The memory of tensors while operations run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# Libraries may convert what a convolution reads and writes to a layout of their own.
_CONVERTING = {torch.ops.aten.convolution, torch.ops.aten.mkldnn_convolution}


class LiveBytes(TorchDispatchMode):
    """Within this context, counts the bytes of tensors that operations create and that still exist, and their maximum.

    It knows the tensors of earlier contexts of the same object. Memory within an operation is unknown, except that of convolutions, which
    is bounded by what they read and write.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self._sum = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results that none of its arguments has."""
        out = func(*args, **(kwargs or {}))
        read = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in read and storage._cdata not in self._live:
                self._live[storage._cdata] = storage.nbytes()
                self._sum += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata)
        inside = sum(read.values()) + out.nbytes if getattr(func, "overloadpacket", None) in _CONVERTING else 0
        self.peak = max(self.peak, self._sum + inside)
        return out

    def _free(self, key: int) -> None:
        self._sum -= self._live.pop(key)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, Tensor))
