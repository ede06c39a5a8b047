"""How far a network sees, measured by what a NaN in one pixel reaches."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irformer.models.interface import evaluation_mode, multiple_of

# Widths of the images in pixels, before they are rounded up to the network's multiple.
_WIDTHS = (128, 512, 1024)
_HEIGHT = 16


@dataclass(frozen=True)
class ReceptiveField:
    """How far a network sees.

    Args:
        pixels: width in input pixels of the region that one input pixel influences.
        whole: whether that was the whole width of the widest image, as for every network with statistics or attention over the image.
    """

    pixels: int
    whole: bool

    def __str__(self) -> str:
        return f"whole image (measured up to {self.pixels:,} pixels)" if self.whole else f"{self.pixels:,} pixels"


def receptive_field(network: nn.Module) -> ReceptiveField | None:
    """Measure the receptive field of a network along the width of an image.

    NaN passes through every sum and product, so that the restored pixels that depend on a pixel that is NaN are exactly those that are
    NaN, however small its influence. The image is as low as the network allows, because the height does not matter. Windows make the field
    depend on the place of a pixel: the largest over places in the network's multiple is returned.

    Args:
        network: see `irformer.models.interface.Network`.

    Returns:
        The field, or None if the network fails on NaN or does not let it pass.
    """
    multiple = multiple_of(network)
    field: ReceptiveField | None = None
    for least in _WIDTHS:
        width = least + -least % multiple
        reached = 0
        for offset in sorted({0, multiple // 2, multiple - 1}):
            columns = _reached_columns(network, max(_HEIGHT, multiple), width, width // 2 // multiple * multiple + offset)
            if columns is None:
                return None
            first, last = columns
            if first == 0 or last == width - 1:
                break
            reached = max(reached, last - first + 1)
        else:
            return ReceptiveField(reached, False)
        field = ReceptiveField(last - first + 1, (first, last) == (0, width - 1))
    return field


def _reached_columns(network: nn.Module, height: int, width: int, column: int) -> tuple[int, int] | None:
    """Return the first and the last input column at which the output is NaN if one pixel is; None if it is nowhere."""
    first = next((parameter for parameter in network.parameters()), torch.empty(0))
    channels: int = network.in_channels  # type: ignore[assignment]
    scale: int = network.scale  # type: ignore[assignment]
    image = torch.full((1, channels, height, width), 0.5, device=first.device)
    image[..., height // 2, column] = torch.nan
    try:
        with evaluation_mode(network), torch.no_grad():
            out: Tensor = network(image)
    except Exception:  # networks that sort or index by their features fail on NaN in many ways
        return None
    columns = torch.isnan(out).flatten(0, 2).any(0).nonzero().flatten().tolist()
    return (columns[0] // scale, columns[-1] // scale) if columns else None
