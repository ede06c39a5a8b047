"""Statistics of features and their application, as two functions: an image can be normalized in parts with the statistics of the whole.

`torch.var_mean` over several axes runs a scalar kernel on the CPU that takes several times as long as LayerNorm. Here, the moments of the
columns of a matrix are computed by the kernel of batch norm and then merged, and normalization and affine map are a single multiply-add,
`x * a + b` with a = weight / deviation and b = bias - mean * a. The backward pass is written in closed form.

Compilers see plain operations, which they fuse themselves.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# A matrix is folded until it has this many columns or more, and this many rows or fewer.
_COLUMNS = 512
_ROWS = 4096
# In training, images with this many features or fewer take plain operations: they stay in the cache, and the number of calls decides.
_SMALL = 65_536


class Moments(NamedTuple):
    """Mean and (biased) variance, in at least float32, with the reduced axes kept as size 1."""

    mean: Tensor
    variance: Tensor


def widened(x: Tensor) -> Tensor:
    """Return x in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def moments(x: Tensor, axes: list[int]) -> Moments:
    """Compute the mean and the variance of features over some axes.

    Args:
        x: features of any shape and floating-point dtype.
        axes: the axes to reduce, without negative numbers.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        variance, mean = torch.var_mean(widened(x), dim=axes, correction=0, keepdim=True)
        return Moments(mean, variance)
    return Moments(*_Moments.apply(x, axes)) if torch.is_grad_enabled() and x.requires_grad else _cpu_moments(x, axes)


def merged(parts: Moments, axis: int, counts: Tensor | None = None) -> Moments:
    """Merge the moments of parts (Chan et al., 1979): the mean variance plus the variance of the means, weighted by size.

    Args:
        parts: the moments of each part.
        axis: the axis along which the parts are arranged.
        counts: the number of values in each part, in a shape that broadcasts over the moments; None if all parts are equally large.
    """
    if counts is None:
        mean = parts.mean.mean(axis, keepdim=True)
        return Moments(mean, (parts.mean - mean).square_().add_(parts.variance).mean(axis, keepdim=True))
    shares = counts / counts.sum(axis, keepdim=True)
    mean = (shares * parts.mean).sum(axis, keepdim=True)
    return Moments(mean, ((parts.mean - mean).square_().add_(parts.variance) * shares).sum(axis, keepdim=True))


def apply_moments(x: Tensor, mean: Tensor, deviation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return (x - mean) / deviation * weight + bias in the dtype of x.

    Args:
        x: features.
        mean: mean, broadcast over x.
        deviation: standard deviation, broadcast over x.
        weight: per-channel weight, in a shape that broadcasts over x.
        bias: per-channel bias, in a shape that broadcasts over x.
    """
    factor = weight / deviation
    return torch.addcmul(torch.addcmul(bias, mean, factor, value=-1), widened(x), factor).to(x.dtype)


def normalize(x: Tensor, weight: Tensor, bias: Tensor, eps: float, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Normalize features by their own moments, then scale and shift their channels.

    Args:
        x: features.
        weight: per-channel weight, in a shape that broadcasts over x.
        bias: per-channel bias, in the same shape.
        eps: added to the variance.
        axes: the axes over which the moments are taken.

    Returns:
        The normalized features, in the shape and dtype of x, and the standard deviation in at least float32, with the reduced axes kept
        as size 1.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Normalize.apply(x, weight, bias, eps, axes)
    return normalize_plainly(x, weight, bias, eps, axes)


def normalize_plainly(x: Tensor, weight: Tensor, bias: Tensor, eps: float, axes: list[int]) -> tuple[Tensor, Tensor]:
    """`normalize` in differentiable operations: what compilers see, and the reference for the closed form of the backward pass."""
    mean, variance = moments(x, axes)
    deviation = torch.sqrt(variance + eps)
    return apply_moments(x, mean, deviation, weight, bias), deviation


class _Moments(torch.autograd.Function):
    """`moments` on the CPU: d mean / dx = 1 / n and d variance / dx = 2 (x - mean) / n for n values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        mean, variance = _cpu_moments(x, axes)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        count = x.numel() // mean.numel()
        slope = grad_variance * (2 / count)
        return torch.addcmul(grad_mean / count - mean * slope, widened(x), slope).to(x.dtype), None


class _Normalize(torch.autograd.Function):
    """`normalize` with its backward pass in closed form, which reads features and gradients twice.

    With n values sharing a mean, z = (x - mean) / deviation, g = dL/dy * weight and s = dL/d deviation:

        dL/dx = (g - mean(g) - z * mean(g * z)) / deviation + s * z / n
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, axes: list[int]) -> tuple[Tensor, Tensor]:
        mean, variance = _plain_moments(widened(x), axes) if _are_small(x) else moments(x, axes)
        deviation = torch.sqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, deviation)
        ctx.axes, ctx.bias_dtype = axes, bias.dtype
        return apply_moments(x, mean, deviation, weight, bias), deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_deviation: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, deviation = ctx.saved_tensors
        wide, grad = widened(x), widened(grad_y)
        sums, products = _channel_sums(grad, wide, mean, deviation, x.dim() - weight.dim())
        count = x.numel() // mean.numel()
        mean_g = (sums * weight).sum(ctx.axes, keepdim=True) / count
        mean_gz = (products * weight).sum(ctx.axes, keepdim=True) / count
        # dL/dx = grad * factor + x * slope + offset; kernels are faster with a vector of equal offsets than with a scalar.
        factor = weight / deviation
        slope = (grad_deviation / count - mean_gz / deviation) / deviation
        offset = (-mean_g / deviation - mean * slope).expand_as(factor).contiguous()
        grad_x = torch.addcmul(offset, wide, slope).addcmul_(grad, factor).to(x.dtype)
        return grad_x, _as_parameter(products, weight), _as_parameter(sums, weight).to(ctx.bias_dtype), None, None


def _as_parameter(sums: Tensor, weight: Tensor) -> Tensor:
    """Sum the gradients of all images, in the shape and dtype of the weight."""
    return sums.sum(0).view(weight.shape).to(weight.dtype)


def _cpu_moments(x: Tensor, axes: list[int]) -> Moments:
    """Compute `moments` on the CPU, without a gradient."""
    wide = widened(x)
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    shape = [x.shape[axis] if axis in kept else 1 for axis in range(x.dim())]
    channels = x.shape[-1] if x.dim() - 1 in kept else 1
    groups = math.prod(shape) // channels  # the kept axes are the first ones, and possibly the last
    columns = _columns(x.numel() // max(1, groups * channels), channels)
    if columns is None or kept not in (list(range(len(kept))), [*range(len(kept) - 1), x.dim() - 1]):
        return _plain_moments(wide, axes)
    parts = [torch.batch_norm_update_stats(matrix, None, None, 0.0) for matrix in wide.reshape(groups, -1, columns)]
    means, variances = (torch.stack(values).double().view(groups, -1, channels) for values in zip(*parts, strict=True))
    mean, variance = merged(Moments(means, variances), 1)
    return Moments(mean.to(wide.dtype).view(shape), variance.to(wide.dtype).view(shape))


def _plain_moments(wide: Tensor, axes: list[int]) -> Moments:
    mean = wide.mean(axes, keepdim=True)
    return Moments(mean, (wide - mean).square_().mean(axes, keepdim=True))


def _are_small(x: Tensor) -> bool:
    """Whether the features of an image are so few that calls take more time than arithmetic."""
    return x.device.type == "cpu" and x[0].numel() <= _SMALL


def _columns(rows: int, channels: int) -> int | None:
    """Return into how many columns a matrix [rows, channels] is folded, a multiple of the channels; None if it cannot be folded well.

    Few columns fit the fastest cache, but their sums are over many rows: rounding errors grow with them.
    """
    folds = 1
    while (folds * channels < _COLUMNS or rows > folds * _ROWS) and rows % (2 * folds) == 0:
        folds *= 2
    return folds * channels if folds * channels >= _COLUMNS // 4 else None


def _channel_sums(grad: Tensor, x: Tensor, mean: Tensor, deviation: Tensor, channel: int) -> tuple[Tensor, Tensor]:
    """Return the sums of dL/dy and of dL/dy * z over the tokens, for each image and channel; the reduced axes are kept as size 1."""
    images, channels = len(x), x.shape[channel]
    shape = [x.shape[axis] if axis in (0, channel) else 1 for axis in range(x.dim())]
    tokens = x[0].numel() // channels
    columns = _columns(tokens, channels) if channel == x.dim() - 1 and x.device.type == "cpu" else None
    if columns is None or _are_small(x):
        axes = [axis for axis in range(1, x.dim()) if axis != channel]
        return grad.sum(axes, keepdim=True), (grad * (x - mean)).sum(axes, keepdim=True) / deviation
    # For each image, the kernel of batch norm returns both sums for each column, reading gradients and features once.
    vectors = [value.expand(shape).reshape(images, channels).repeat(1, columns // channels) for value in (mean, 1 / deviation)]
    matrices = [value.reshape(images, -1, columns) for value in (grad, x)]
    parts = [
        torch.ops.aten.native_batch_norm_backward(g, z, None, None, None, m, r, True, 0.0, [False, True, True])
        for g, z, m, r in zip(*matrices, *vectors, strict=True)
    ]
    products, sums = (
        torch.stack(values).view(images, -1, channels).sum(1).view(shape) for values in zip(*(part[1:] for part in parts), strict=True)
    )
    return sums, products
