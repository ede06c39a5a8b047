"""Attention with a learned bias for each pair of tokens, computed in the way that is fastest on each device."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from irformer.models.any_size import attend_in_graph, exporting

# Scores that are in memory at a time on the CPU, so that they stay in its cache.
_SCORES = 1 << 19

# Without a gradient, PyTorch's kernel is the faster one for windows with more scores than this.
_SMALL = 1 << 14

# Masked pairs of tokens get probabilities of about e^-100. Some processors, Intel's among them, are many times slower with numbers this
# small (subnormal ones): a training step took up to twice as long. Probabilities below this change no digit of the result and become zero.
_NEGLIGIBLE = 1e-20

# The memory-efficient kernel of CUDA needs a head size that is a multiple of this (pytorch/pytorch issue 110630).
_CUDA_HEAD_MULTIPLE = 8


class Borders(NamedTuple):
    """The grid of shifted windows, in which the windows of the last row and column are masked.

    Args:
        rows: rows of windows in each image.
        columns: columns of windows in each image.
        masks: the pairs of tokens that must not attend to each other: [3, n, n], bool, for the last column, the last row, and the corner.
    """

    rows: int
    columns: int
    masks: Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, borders: Borders | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v for each window and head.

    Args:
        q: queries [windows, n, heads, d].
        k: keys [windows, m, heads, d].
        v: values [windows, m, heads, d].
        bias: added to the scores [heads, n, m].
        borders: the masks of shifted windows, or None.

    Returns:
        [windows, n, heads, d].
    """
    if exporting():
        return attend_in_graph(q, k, v, bias, borders)
    plain = q.device.type == "cpu" and q.dtype == bias.dtype and q.dtype in (torch.float32, torch.float64)
    if plain and not torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _MatrixProducts.apply(q, k, v, bias, borders)
        if bias[0].numel() <= _SMALL:
            return _attend_by_products(q, k, v, bias, borders, None)
    return _attend_fused(q, k, v, bias, borders)


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, borders: Borders | None) -> Tensor:
    """`attend` by PyTorch's scaled_dot_product_attention, with one call for all windows that have the same mask."""
    bias = bias.to(q.dtype)
    if borders is None:
        return scaled_dot_product(q, k, v, bias)
    rows, columns, masks = borders
    at_right, at_bottom, in_corner = (bias.masked_fill(mask, -100.0) for mask in masks)
    q, k, v = (value.unflatten(0, (-1, rows, columns)) for value in (q, k, v))

    def part(row: slice, column: slice, bias: Tensor) -> Tensor:
        queries, keys, values = (value[:, row, column] for value in (q, k, v))
        attended = scaled_dot_product(queries.flatten(0, 2), keys.flatten(0, 2), values.flatten(0, 2), bias)
        return attended.unflatten(0, queries.shape[:3])

    most, last = slice(-1), slice(-1, None)
    upper = torch.cat([part(most, most, bias), part(most, last, at_right)], 2)
    lowest = torch.cat([part(last, most, at_bottom), part(last, last, in_corner)], 2)
    return torch.cat([upper, lowest], 1).flatten(0, 2)


def bias_of_pairs(table: Tensor, index: Tensor) -> Tensor:
    """Return the bias for each pair of tokens, [heads, n, m].

    Args:
        table: the learned biases [positions, heads].
        index: the relative position of each pair [n, m].
    """
    if table.device.type != "cpu" or exporting():
        return table[index].permute(2, 0, 1)  # adds gradients in a fixed order on CUDA too
    # The backward pass is up to eight times as fast as that of indexing.
    rows = table.t()
    return rows.gather(1, index.view(1, -1).expand(len(rows), -1)).view(-1, *index.shape)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, head_multiple: int | None = None) -> Tensor:
    """Call scaled_dot_product_attention, on CUDA with heads padded by zeros to the size that its fast kernels need.

    Args:
        q: queries [windows, n, heads, d].
        k: keys [windows, m, heads, d].
        v: values [windows, m, heads, d].
        bias: added to the scores [heads, n, m].
        head_multiple: pad the heads to a multiple of this; None selects it by the device.
    """
    size = q.shape[-1]
    multiple = head_multiple or (_CUDA_HEAD_MULTIPLE if q.device.type == "cuda" else 1)
    if size % multiple != 0:
        q, k, v = (F.pad(value, (0, -size % multiple)) for value in (q, k, v))
    q, k, v = (value.transpose(1, 2) for value in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0), scale=1 / math.sqrt(size))
    return attended.transpose(1, 2)[..., :size]


class _MatrixProducts(torch.autograd.Function):
    """`attend` in matrix products, with its backward pass in closed form.

    On the CPU, scaled_dot_product_attention multiplies matrices of one head and window at a time, which are too small to be fast, and with
    a gradient for the bias it takes several more passes over the scores. Here each product is over many windows of one head, reads
    queries, keys and values where the projection wrote them, and has the small head size as the rows of its result.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, borders: Borders | None) -> Tensor:
        windows, n, heads, _ = q.shape
        probabilities = q.new_empty(heads, windows, n, k.shape[1])
        ctx.save_for_backward(q, k, v, probabilities)
        return _attend_by_products(q, k, v, bias, borders, probabilities)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probabilities = ctx.saved_tensors
        _, windows, n, m = probabilities.shape
        heads, size = q.shape[2:]
        scale = 1 / math.sqrt(size)
        grad_q, grad_k, grad_v = (torch.empty_like(value, memory_format=torch.contiguous_format) for value in (q, k, v))
        grad_bias = q.new_zeros(heads, n, m)
        for chunk in _chunks(windows, n * m):
            for head in range(heads):
                at = (chunk, slice(None), head)
                p, g = probabilities[head, chunk], grad[at]
                grad_v[at] = torch.bmm(g.mT, p).mT
                grad_scores = torch.ops.aten._softmax_backward_data(torch.bmm(g, v[at].mT), p, -1, p.dtype)
                grad_q[at] = torch.bmm(k[at].mT, grad_scores.mT).mul_(scale).mT
                grad_k[at] = torch.bmm(q[at].mT, grad_scores).mul_(scale).mT
                grad_bias[head] += grad_scores.sum(0)
        return grad_q, grad_k, grad_v, grad_bias, None


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, borders: Borders | None, probabilities: Tensor | None) -> Tensor:
    """`attend` in matrix products without a gradient; writes the softmax of the scores [heads, windows, n, m] to `probabilities`."""
    windows, n, heads, size = q.shape
    m = k.shape[1]
    out = q.new_empty(windows, n, heads, size)
    # Written over in each step: fresh memory costs page faults, which take as long as the arithmetic.
    space, softmax_space = (q.new_empty(min(windows, _at_a_time(n * m)), n, m) for _ in range(2))
    for chunk in _chunks(windows, n * m):
        count = chunk.stop - chunk.start
        for head in range(heads):
            at = (chunk, slice(None), head)
            scores = torch.baddbmm(bias[head].expand(count, n, m), q[at], k[at].mT, alpha=1 / math.sqrt(size), out=space[:count])
            if borders is not None:
                _mask(scores, borders, chunk)
            p = softmax_space[:count] if probabilities is None else probabilities[head, chunk]
            torch.softmax(scores, -1, out=p)
            if borders is not None:
                F.threshold(p, _NEGLIGIBLE, 0.0, inplace=True)
            out[at] = torch.bmm(v[at].mT, p.mT).mT
    return out


def _chunks(windows: int, scores: int) -> Iterator[slice]:
    """Split the windows so that the scores of one head and chunk stay in the cache."""
    step = _at_a_time(scores)
    for start in range(0, windows, step):
        yield slice(start, min(start + step, windows))


def _at_a_time(scores: int) -> int:
    """Return the number of windows in a chunk."""
    return max(1, _SCORES // scores)


def _mask(scores: Tensor, borders: Borders, chunk: slice) -> None:
    """Mask the scores of a chunk of windows in place, by subtracting 100 as the official code does."""
    rows, columns, masks = borders
    at_right, at_bottom, in_corner = masks.to(scores.dtype) * -100.0
    image = rows * columns
    scores[(columns - 1 - chunk.start) % columns :: columns] += at_right
    scores[(image - 1 - chunk.start) % image :: image] += in_corner - at_right
    for corner in range(chunk.start + (-chunk.start - 1) % image, chunk.stop + columns, image):
        first, end = max(corner - columns + 1, chunk.start), min(corner, chunk.stop)
        if first < end:
            scores[first - chunk.start : end - chunk.start] += at_bottom
