"""The ends of a network: the padded, normalized image in bands, and the restored image, written in bands."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.banded.parked import Band, Margins
from irformer.models.blocks import to_channels_last

# Rows that bicubic interpolation reads above and below a row of the enlarged image.
_BICUBIC = 3


class Pixels:
    """The normalized image [B, H, W, C] that a network sees: padded to its multiple, and possibly enlarged.

    Args:
        lq: images [B, C, h, w] in [0, 1].
        scaling: normalizes pixels.
        multiple: number to a multiple of which height and width are padded; the height of a unit.
        enlarge: factor by which the padded image is enlarged by bicubic interpolation.
    """

    def __init__(self, lq: Tensor, scaling: nn.Module, multiple: int, enlarge: int = 1) -> None:
        self._lq = lq
        self._scaling = scaling
        self._enlarge = enlarge
        self._multiple = multiple
        height, width = lq.shape[2:]
        bottom, right = -height % multiple, -width % multiple
        reflect = bottom < height and right < width  # as pad_to_multiple decides
        self._row_indices = _padded_indices(height, bottom, reflect).to(lq.device)
        self._column_indices = _padded_indices(width, right, reflect).to(lq.device)
        self.units = (height + bottom) // multiple
        self.width = enlarge * (width + right)
        self.unit = enlarge * multiple

    def around(self, band: Band, margin: int) -> Margins:
        """Return the rows of a band and up to `margin` rows of the image above and below it."""
        start, end, height = band.start * self.unit, band.end * self.unit, self.units * self.unit
        above, below = min(margin, start), min(margin, height - end)
        start, end = start - above, end + below
        if self._enlarge == 1:
            return Margins(to_channels_last(self._normalized(start, end)), above, below)
        first = max(0, start // self._enlarge - _BICUBIC)
        last = min(height // self._enlarge, -(-end // self._enlarge) + _BICUBIC)
        enlarged = F.interpolate(self._normalized(first, last), scale_factor=self._enlarge, mode="bicubic")
        offset = first * self._enlarge
        return Margins(to_channels_last(enlarged)[:, start - offset : end - offset], above, below)

    def _normalized(self, start: int, end: int) -> Tensor:
        pixels = self._lq[:, :, self._row_indices[start:end]][..., self._column_indices]
        scaled: Tensor = self._scaling(pixels)
        return scaled.contiguous(memory_format=torch.channels_last)


def _padded_indices(size: int, more: int, reflect: bool) -> Tensor:
    """Return the index of the pixel at each place of a padded axis."""
    index = torch.arange(size + more)
    return torch.where(index < size, index, 2 * (size - 1) - index if reflect else torch.tensor(size - 1))


class Restored:
    """The restored image [B, C, H, W], cut to its size.

    Args:
        height: H.
        width: W.
        unit: number of rows in a unit at this resolution.
    """

    def __init__(self, height: int, width: int, unit: int) -> None:
        self._height = height
        self._width = width
        self._unit = unit
        self._image: Tensor | None = None

    @property
    def image(self) -> Tensor:
        """The image, once all bands are written."""
        assert self._image is not None
        return self._image

    def begin(self, measured: bool) -> None:
        """Start the pass; nothing is measured."""

    def write(self, band: Band, values: Tensor, shift: int = 0, keep: int = 0) -> None:
        """Write the rows of a band [B, rows, W, C]."""
        if self._image is None:
            self._image = values.new_empty(values.shape[0], values.shape[3], self._height, self._width)
        start, end = band.start * self._unit, min(band.end * self._unit, self._height)
        self._image[:, :, start:end] = values[:, : end - start, : self._width].permute(0, 3, 1, 2)
