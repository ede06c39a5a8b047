"""A network applied to an image of any size: from pixels to pixels, by the rules of a protocol."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.imaging.resize import Variant, imresize
from irformer.models.interface import multiple_of, padding_of
from irformer.tasks.task import Padding, Task


class NonFiniteOutputError(UserError):
    """A network's output holds values that are not finite, and so is no image."""


class Restorer(Protocol):
    """Anything that turns a degraded image into a restored one; `padding` says what is done to its size before."""

    padding: str

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """[h, w, C], uint8 or float32 in units of [0, 1], to [scale*h, scale*w, C], uint8."""
        ...


class BicubicRestorer:
    """Bicubic enlargement by MATLAB's imresize: the row that every super-resolution table starts with.

    Args:
        scale: factor.
        variant: when the values are rounded.
    """

    def __init__(self, scale: int, variant: Variant = "matlab_uint8") -> None:
        self.scale = scale
        self.variant = variant
        self.padding = "none"

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """[h, w, C], uint8, to [scale*h, scale*w, C]."""
        return imresize(lq, lq.shape[0] * self.scale, lq.shape[1] * self.scale, self.variant)


class DegradedRestorer:
    """Leaves the degraded image as it is, clamped and rounded: the row that tables of tasks which keep the size start with."""

    padding = "none"

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """[H, W, C], uint8 or float32 in units of [0, 1], to the same shape."""
        return to_image(to_tensor(lq))


def baseline(task: Task) -> tuple[str, Restorer]:
    """What a task is measured with where nothing is learned, and its name: bicubic enlargement, or the degraded image itself."""
    return ("bicubic", BicubicRestorer(task.scale)) if task.scale > 1 else ("degraded", DegradedRestorer())


class NetworkRestorer:
    """A network under a padding rule; its output is clamped to [0, 1] and rounded to the depth of the input, as it is written to a file.

    The network is called as it is: evaluation mode, device and autocast are the caller's.

    Args:
        network: see `irformer.models.interface.Network`; maps [1, C, h, w] in [0, 1] to [1, C, scale*h, scale*w].
        padding: what is done to sizes before the network; `network` takes its `test_padding`.
        device: where the image is sent.
    """

    def __init__(self, network: nn.Module, padding: Padding, device: torch.device | str = "cpu") -> None:
        self.network = network
        self.padding: str = padding_of(network) if padding == "network" else padding
        self.device = device

    def __call__(self, lq: NDArray) -> NDArray:
        """[h, w, C], uint8, uint16, or float32 in units of [0, 1], to [scale*h, scale*w, C], uint16 for uint16 and otherwise uint8.

        Raises:
            NonFiniteOutputError: the network's output is not finite.
        """
        height, width = lq.shape[:2]
        x = to_tensor(lq).to(self.device)
        if self.padding == "flip_always":
            x = pad_flip_always(x, multiple_of(self.network))
        with torch.no_grad():
            out = self.network(x)
        out = out[:, :, : height * self.network.scale, : width * self.network.scale]
        return to_image(out, np.uint16 if lq.dtype == np.uint16 else np.uint8)


def to_tensor(image: NDArray) -> Tensor:
    """[h, w, C], uint8, uint16, or float32 in units of [0, 1], to float32 [1, C, h, w] in units of [0, 1]."""
    values = image.astype(np.float32) if image.dtype == np.uint16 else image
    pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1).unsqueeze(0).float()
    return pixels / np.iinfo(image.dtype).max if image.dtype in (np.uint8, np.uint16) else pixels


def to_image(pixels: Tensor, depth: type[np.uint8] | type[np.uint16] = np.uint8) -> NDArray:
    """[1, C, H, W] in units of [0, 1] to [H, W, C] of integers of a depth: clamped, then rounded.

    Raises:
        NonFiniteOutputError: a value is NaN or infinite; to clamp it would hide that.
    """
    wrong = pixels.numel() - int(torch.isfinite(pixels).sum())
    if wrong:
        raise NonFiniteOutputError(
            f"the restored image has {wrong:,} of {pixels.numel():,} values that are NaN or infinite, expected numbers: "
            "the weights are damaged, or the precision is too low; use other weights, or compute in float32"
        )
    levels = (pixels.squeeze(0).float().clamp(0, 1) * np.iinfo(depth).max).round()
    levels = levels.to(torch.uint8 if depth is np.uint8 else torch.int32)  # PyTorch has few operations on uint16
    return levels.permute(1, 2, 0).cpu().numpy().astype(depth, copy=False)


def pad_flip_always(x: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] by its mirror image, at the bottom and on the right, to the next greater multiple: 1 to `multiple` pixels.

    A size that is a multiple already gets a whole window more: so do SwinIR's test scripts, and so its published numbers.
    """
    H, W = x.shape[2:]
    x = torch.cat([x, x.flip(2)], 2)[:, :, : (H // multiple + 1) * multiple]
    return torch.cat([x, x.flip(3)], 3)[:, :, :, : (W // multiple + 1) * multiple]
