"""Operators in a form that other runtimes compute precisely.

A runtime may sum a whole image in one float32 accumulator, compute statistics in float16, or lack an operator. `REWRITES` replaces such
operators by others that mean the same:

- Means and variances over several axes are taken over one axis at a time, so that no sum has more terms than an image has rows, columns
  or channels (microsoft/onnxruntime issue 28450).
- Statistics and softmax of float16 values are computed in float32.
- Pixel unshuffle becomes a reshape and a transpose: its ONNX operator orders channels differently (microsoft/onnxscript issue 2891).
- Overlapping windows are selected by index, for a number of windows that is unknown.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from irformer.norms.moments import widened

_aten = torch.ops.aten

# Columns of the matrix into which the last axis is folded before it is summed.
_FOLD = 512


def _mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Take the mean over one axis after the other, from the last to the first, in at least float32."""
    axes = _axes(x, dim)
    narrow = widened(x).dtype is not x.dtype
    if len(axes) == 1 and not narrow and dtype is None:
        return NotImplemented
    mean = _mean_by_axis(widened(x if dtype is None else x.to(dtype)), axes).to(dtype or x.dtype)
    return mean if keepdim else mean.squeeze(axes)


def _var_mean(x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    """Take mean and biased variance over one axis after the other, in at least float32; other corrections are left as they are."""
    if correction != 0:
        return NotImplemented
    axes = _axes(x, dim)
    wide = widened(x)
    mean = _mean_by_axis(wide, axes)
    variance = _mean_by_axis((wide - mean) * (wide - mean), axes)
    pair = [value.to(x.dtype) if keepdim else value.to(x.dtype).squeeze(axes) for value in (variance, mean)]
    return tuple(pair)


def _mean_by_axis(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in reversed(axes):
        x = x.mean(axis, keepdim=True)
    return x


def _axes(x: Tensor, dim: Sequence[int] | None) -> list[int]:
    return sorted(axis % x.dim() for axis in dim) if dim else list(range(x.dim()))


def _norm(x: Tensor, ord: float = 2, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Take the L2 norm over the last axis in two stages: the axis is folded into a matrix, padded with zeros."""
    if ord != 2 or dtype is not None or _axes(x, dim) != [x.dim() - 1]:
        return NotImplemented
    wide = widened(x)
    squares = F.pad(wide * wide, (0, -x.shape[-1] % _FOLD)).unflatten(-1, (-1, _FOLD))
    return torch.sqrt(squares.sum(-1).sum(-1, keepdim=keepdim)).to(x.dtype)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, cudnn: bool = True
) -> Any:
    if widened(x).dtype is x.dtype:
        return NotImplemented
    weight, bias = (None if vector is None else widened(vector) for vector in (weight, bias))
    return F.layer_norm(widened(x), shape, weight, bias, eps).to(x.dtype)


def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    if dtype is not None or widened(x).dtype is x.dtype:
        return NotImplemented
    return widened(x).softmax(dim).to(x.dtype)


def _pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    blocks = x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    axis = dimension % x.dim()
    windows = (x.shape[axis] - size) // step + 1
    index = torch.arange(windows, device=x.device)[:, None] * step + torch.arange(size, device=x.device)
    return x.index_select(axis, index.flatten()).unflatten(axis, (windows, size)).movedim(axis + 1, -1)


def _addcmul(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    """Multiply and add without a multiplication by 1."""
    product = first * second
    return x + product if value == 1 else x - product if value == -1 else x + value * product


REWRITES: dict[Any, Callable[..., Any]] = {
    _aten.mean.dim: _mean,
    _aten.var_mean.correction: _var_mean,
    _aten.linalg_vector_norm.default: _norm,
    _aten.layer_norm.default: _layer_norm,
    _aten.softmax.int: _softmax,
    _aten.pixel_unshuffle.default: _pixel_unshuffle,
    _aten.unfold.default: _unfold,
    _aten.addcmul.default: _addcmul,
}
"""Replacements for `torch.export.ExportedProgram.run_decompositions`; one that returns NotImplemented keeps the operator."""
