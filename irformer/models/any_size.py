"""What networks compute in exported graphs, where sizes are unknown: padding and attention without branches on the size.

PyTorch's exporter turns a branch on a size into a condition that the size must fulfill. The functions here give the results of their
counterparts for every size.
"""

import math

import torch
from torch import Tensor

from irformer.norms.moments import widened

# New in PyTorch 2.7.
exporting = getattr(torch.compiler, "is_exporting", lambda: False)


def pad_by_index(x: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] as `irformer.models.blocks.pad_to_multiple` does, by selecting rows and columns."""
    height, width = x.shape[2:]
    padded = [torch.arange((size + multiple - 1) // multiple * multiple, device=x.device) for size in (height, width)]
    mirrored = [size - 1 - (index - (size - 1)).abs() for index, size in zip(padded, (height, width), strict=True)]
    # Reflection at an image that is too small reaches positions before its first pixel.
    fits = torch.cat(mirrored).amin(0) >= 0
    rows, columns = (
        torch.where(fits, reflected, index.clamp(max=size - 1))
        for reflected, index, size in zip(mirrored, padded, (height, width), strict=True)
    )
    return x.index_select(2, rows).index_select(3, columns)


def attend_in_graph(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, borders: tuple[int, int, Tensor] | None) -> Tensor:
    """Attend as `irformer.models.attention.attend` does, with scores and softmax in at least float32.

    Args:
        q: queries [windows, n, heads, d].
        k: keys [windows, m, heads, d].
        v: values [windows, m, heads, d].
        bias: added to the scores [heads, n, m].
        borders: an `irformer.models.attention.Borders`, or None.
    """
    q, k, v = (value.transpose(1, 2) for value in (q, k, v))
    scores = widened(q / math.sqrt(q.shape[-1]) @ k.mT) + widened(bias)
    if borders is not None:
        scores = _mask(scores, *borders)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2)


def _mask(scores: Tensor, rows: int, columns: int, masks: Tensor) -> Tensor:
    """Mask the scores of shifted windows [B * rows * columns, heads, n, n], by subtracting 100 as the official code does."""
    at_right, at_bottom, _ = masks  # the corner's mask is wherever one of the others is
    last_row = (torch.arange(rows, device=scores.device) == rows - 1).view(-1, 1, 1, 1)
    last_column = (torch.arange(columns, device=scores.device) == columns - 1).view(-1, 1, 1)
    masked = (last_row & at_bottom) | (last_column & at_right)
    return (scores.unflatten(0, (-1, rows, columns)) - 100.0 * masked.unsqueeze(2).to(scores.dtype)).flatten(0, 2)
