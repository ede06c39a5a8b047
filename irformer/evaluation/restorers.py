"""Restorers: apply a network or a baseline to images of any size, with the padding of a protocol."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.imaging.resize import Variant, imresize
from irformer.models.interface import multiple_of, padding_of
from irformer.precision.reduced import Precision, PrecisionRecord, in_precision
from irformer.tasks.task import Padding, Task

# Values of a restored image that are converted at a time: an image may be large, and conversions need several copies.
_CONVERTED = 2**24


class NonFiniteOutputError(UserError):
    """A network's output contains values that are not finite.

    Args:
        message: the message.
        count: how many values are not finite.
    """

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message)
        self.count = count


class PrecisionOverflowError(NonFiniteOutputError):
    """Activations are beyond the range of a network's precision."""


class Restorer(Protocol):
    """Maps a degraded image to a restored image; `padding` names the padding that it applies."""

    @property
    def padding(self) -> str:
        """The padding that it applies."""
        ...

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """Restore [h, w, C], uint8 or float32 in [0, 1], to [scale*h, scale*w, C], uint8."""
        ...


class BicubicRestorer:
    """Bicubic upscaling by MATLAB's imresize, the baseline of super-resolution.

    Args:
        scale: upscaling factor.
        variant: when values are rounded.
    """

    def __init__(self, scale: int, variant: Variant = "matlab_uint8") -> None:
        self.scale = scale
        self.variant = variant
        self.padding = "none"

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """Upscale [h, w, C], uint8, to [scale*h, scale*w, C]."""
        return imresize(lq, lq.shape[0] * self.scale, lq.shape[1] * self.scale, self.variant)


class DegradedRestorer:
    """Returns the degraded image, clamped and rounded: the baseline of tasks without upscaling."""

    padding = "none"

    def __call__(self, lq: NDArray) -> NDArray[np.uint8]:
        """Convert [H, W, C], uint8 or float32 in [0, 1], to uint8 of the same shape."""
        return to_image(to_tensor(lq))


def baseline(task: Task) -> tuple[str, Restorer]:
    """Return the name and the restorer of a task's baseline: bicubic upscaling, or the degraded image itself."""
    return ("bicubic", BicubicRestorer(task.scale)) if task.scale > 1 else ("degraded", DegradedRestorer())


class NetworkRestorer:
    """Applies a network with padding; clamps its output to [0, 1] and rounds it to the bit depth of the input, as in an image file.

    The caller is responsible for evaluation mode, the network's device, and autocast.

    Args:
        network: see `irformer.models.interface.Network`; maps [1, C, h, w] in [0, 1] to [1, C, scale*h, scale*w].
        padding: padding before the network; `network` means the network's `test_padding`.
        device: device to which images are moved.
        precision: precision of the network, see `irformer.precision.in_precision`; the network itself is not changed.

    Raises:
        UserError: the network does not run in this precision.
    """

    def __init__(self, network: nn.Module, padding: Padding, device: torch.device | str = "cpu", precision: Precision = "fp32") -> None:
        self.reduced = None if precision == "fp32" else in_precision(network, precision)
        self.network = network if self.reduced is None else self.reduced.network
        self.padding: str = padding_of(network) if padding == "network" else padding
        self.device = device

    def __call__(self, lq: NDArray) -> NDArray:
        """Restore [h, w, C], uint8, uint16, or float32 in [0, 1], to [scale*h, scale*w, C], uint16 for uint16 input, otherwise uint8.

        Raises:
            PrecisionOverflowError: the image, or an activation of the network, is beyond the range of its precision.
            NonFiniteOutputError: the network's output is not finite for another reason.
        """
        return to_image(self.pixels(lq), np.uint16 if lq.dtype == np.uint16 else np.uint8)

    def pixels(self, lq: NDArray) -> Tensor:
        """Restore [h, w, C] to what the network returns, [1, C, scale*h, scale*w], neither clamped nor rounded."""
        height, width = lq.shape[:2]
        x = to_tensor(lq).to(self.device)
        if self.padding == "flip_always":
            x = pad_flip_always(x, multiple_of(self.network))
        out = self.apply(x)
        return out[:, :, : height * self.network.scale, : width * self.network.scale]

    def apply(self, x: Tensor) -> Tensor:
        """Apply the network to [1, C, h, w] in [0, 1] without gradients.

        Raises:
            PrecisionOverflowError: an activation is beyond the range of the network's precision.
        """
        if self.reduced is not None:
            self.reduced.reset()
        with torch.no_grad():
            out: Tensor = self.network(x)
        if self.reduced is not None:
            _require_in_range(self.reduced.record())
        return out


def _require_in_range(record: PrecisionRecord) -> None:
    """Raise an error if activations overflowed: even where the image is finite, it would be wrong."""
    if record.first_overflow is None and not record.non_finite:
        return
    where = f" in {record.first_overflow}" if record.first_overflow is not None else ""
    would_be = "black" if record.non_finite == record.values else "partly black" if record.non_finite else "wrong"
    raise PrecisionOverflowError(
        f"precision {record.precision}: activations overflow{where}, so the restored image would be {would_be} ({record.non_finite:,} of "
        f"{record.values:,} values are NaN or infinite); use precision {record.wider}"
    )


def to_tensor(image: NDArray) -> Tensor:
    """Convert [h, w, C], uint8, uint16, or float32 in [0, 1], to float32 [1, C, h, w] in [0, 1]."""
    values = image.astype(np.float32) if image.dtype == np.uint16 else image
    pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1).unsqueeze(0).float()
    return pixels / np.iinfo(image.dtype).max if image.dtype in (np.uint8, np.uint16) else pixels


def to_image(pixels: Tensor, depth: type[np.uint8] | type[np.uint16] = np.uint8) -> NDArray:
    """Convert [1, C, H, W] in [0, 1] to integers [H, W, C] of the given bit depth: clamp, then round.

    Raises:
        NonFiniteOutputError: a value is NaN or infinite, which clamping would hide.
    """
    channels, height, width = pixels.shape[1:]
    rows = max(1, _CONVERTED // max(1, channels * width))
    parts = [pixels[0, :, top : top + rows] for top in range(0, height, rows)]
    non_finite = pixels.numel() - sum(int(torch.isfinite(part).sum()) for part in parts)
    if non_finite:
        raise NonFiniteOutputError(
            f"{non_finite:,} of {pixels.numel():,} values of the restored image are NaN or infinite, expected finite numbers: "
            "the weights are damaged, or the precision is too low; use other weights, or compute in float32",
            non_finite,
        )
    image = np.empty((height, width, channels), depth)
    for top, part in zip(range(0, height, rows), parts, strict=True):
        levels = (part.float().clamp(0, 1) * np.iinfo(depth).max).round_()
        levels = levels.to(torch.uint8 if depth is np.uint8 else torch.int32)  # PyTorch has few operations on uint16
        image[top : top + rows] = levels.permute(1, 2, 0).cpu().numpy()
    return image


def pad_flip_always(x: Tensor, multiple: int) -> Tensor:
    """Pad [B, C, H, W] with its mirror image, at the bottom and on the right, to the next larger multiple: 1 to `multiple` pixels.

    Sizes that are already a multiple get a whole window more, as in SwinIR's test script and its published results.
    """
    H, W = x.shape[2:]
    x = torch.cat([x, x.flip(2)], 2)[:, :, : (H // multiple + 1) * multiple]
    return torch.cat([x, x.flip(3)], 3)[:, :, :, : (W // multiple + 1) * multiple]
