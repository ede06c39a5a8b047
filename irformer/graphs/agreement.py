"""How closely a graph agrees with the network that it was made of, on a photo at several sizes."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irformer.datasets.catalog import sample_photos
from irformer.errors import UserError
from irformer.imaging.images import read_image
from irformer.models.interface import evaluation_mode

RELATIVE = 1e-4
DECIBELS = 50.0


class Size(NamedTuple):
    """The size of a batch of images."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{f'{self.batch} x ' if self.batch > 1 else ''}{self.width}x{self.height}"


# Smaller than a window, several images with odd sides, no square, and an image of everyday use.
SIZES = (Size(1, 7, 5), Size(2, 37, 51), Size(1, 96, 128), Size(1, 512, 512))


@dataclass(frozen=True)
class Agreement:
    """The difference between a graph and its network on images of one size.

    Args:
        size: the size.
        relative: the largest difference, relative to the largest value of the network's output.
        decibels: PSNR of the graph's output against the network's, in dB; the peak is 1.
    """

    size: Size
    relative: float
    decibels: float


def agreements(graph: Callable[[Tensor], Tensor], network: nn.Module, channels: int, sizes: Sequence[Size]) -> Iterator[Agreement]:
    """Compare a graph with its network on a photo installed with scikit-image.

    Args:
        graph: takes and returns float32 images [B, C, H, W]; it converts them if it computes in float16.
        network: the network on the CPU, in float32.
        channels: number of channels of the images.
        sizes: the sizes to compare.
    """
    for size in sizes:
        images = photo(size, channels)
        with torch.inference_mode(), evaluation_mode(network):
            expected = network(images)
            found = graph(images)
        if found.shape != expected.shape:
            raise UserError(f"the graph returns {list(found.shape)} for {size} pixels, expected {list(expected.shape)}")
        difference = (found.double() - expected.double()).abs()
        mean_square = float(difference.square().mean())
        decibels = math.inf if mean_square == 0 else -10 * math.log10(mean_square) if math.isfinite(mean_square) else -math.inf
        relative = float(difference.max() / expected.double().abs().max())
        yield Agreement(size, relative if math.isfinite(relative) else math.inf, decibels)


def misses(found: Agreement, half: bool) -> bool:
    """Return whether a graph differs too much from its network: more than 1e-4 in float32, or less than 50 dB in float16."""
    return not (found.decibels >= DECIBELS if half else found.relative <= RELATIVE)


def described(found: Agreement, half: bool) -> str:
    """Return the agreement at one size in words."""
    return f"{found.decibels:.1f} dB at {found.size}" if half else f"{found.relative:.1e} at {found.size}"


def photo(size: Size, channels: int) -> Tensor:
    """Return a photo [batch, channels, height, width] in [0, 1], mirrored where it ends; each image of a batch starts elsewhere."""
    (path,) = sample_photos(("coffee.png",))
    pixels = torch.from_numpy(np.ascontiguousarray(read_image(path))).permute(2, 0, 1).float() / 255
    pixels = pixels if channels == 3 else pixels.mean(0, keepdim=True).expand(channels, -1, -1)
    images = []
    for i in range(size.batch):
        rows, columns = (_mirrored(i, count, length) for count, length in zip(size[1:], pixels.shape[1:], strict=True))
        images.append(pixels[:, rows][:, :, columns])
    return torch.stack(images)


def _mirrored(image: int, count: int, length: int) -> Tensor:
    """Return `count` positions along an axis, back and forth; images of a batch start at different ones."""
    steps = (torch.arange(count) + 61 * image + length // 3) % (2 * length - 2)
    return torch.where(steps < length, steps, 2 * length - 2 - steps)
