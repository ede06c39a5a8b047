"""The photos on which a network is inspected."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irformer.datasets.catalog import sample_photos
from irformer.errors import UserError
from irformer.evaluation.restorers import to_tensor
from irformer.imaging.gray import to_gray
from irformer.imaging.images import read_image
from irformer.imaging.resize import imresize

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
_SHORTEST = 300  # pixels of the shortest side of these photos


def probing_photos(channels: int, scale: int, side: int) -> dict[str, Tensor]:
    """Return the centers of photos that come with scikit-image, as a network for a task of this scale sees them: reduced by the scale.

    Args:
        channels: image channels; 1 for gray, and more than 3 repeat the colors.
        scale: upscaling factor of the network.
        side: side in LQ pixels.

    Returns:
        Images [1, channels, side, side] in [0, 1] by the name of the file.

    Raises:
        UserError: the photos are smaller than that.
    """
    if side > _SHORTEST // scale:
        raise UserError(f"size {side}: the photos have {_SHORTEST // scale} pixels after reduction by {scale}; use at most that")
    return {name: _center(read_image(path), channels, scale, side) for name, path in zip(PHOTOS, sample_photos(PHOTOS), strict=True)}


def _center(photo: NDArray[np.uint8], channels: int, scale: int, side: int) -> Tensor:
    height, width = (size // scale * scale for size in photo.shape[:2])
    reduced = imresize(photo[:height, :width], height // scale, width // scale) if scale > 1 else photo
    top, left = ((size - side) // 2 for size in reduced.shape[:2])
    crop = np.ascontiguousarray(reduced[top : top + side, left : left + side])
    tensor = to_tensor(to_gray(crop, "opencv") if channels == 1 else crop)
    return tensor[:, torch.arange(channels) % tensor.shape[1]]
