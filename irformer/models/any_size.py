"""What networks compute in exported graphs, where sizes are unknown: padding and masks without branches on the size.

PyTorch's exporter turns a branch on a size into a condition that the size must fulfill. The functions here give the results of their
counterparts for every size.
"""

import torch
from torch import Tensor

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


def mask_borders(scores: Tensor, rows: int, columns: int, masks: Tensor) -> Tensor:
    """Mask the scores of shifted windows, by subtracting 100 as the official code does.

    Args:
        scores: [B * rows * columns, heads, n, n].
        rows: rows of windows in each image.
        columns: columns of windows in each image.
        masks: see `irformer.models.attention.Borders`.
    """
    at_right, at_bottom, in_corner = masks
    last_row = (torch.arange(rows, device=scores.device) == rows - 1).view(-1, 1, 1, 1)
    last_column = (torch.arange(columns, device=scores.device) == columns - 1).view(-1, 1, 1)
    # The corner's mask is wherever one of the others is, and between the regions that differ in both.
    masked = (last_row & at_bottom) | (last_column & at_right) | (last_row & last_column & in_corner)
    return (scores.unflatten(0, (-1, rows, columns)) - 100.0 * masked.unsqueeze(2).to(scores.dtype)).flatten(0, 2)
