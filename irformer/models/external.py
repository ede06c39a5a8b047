"""Wrapper that trains and evaluates networks of other projects: `model=external model.network._target_=...`."""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.models.blocks import Channels, Scale, Window
from irformer.models.interface import TestPadding


class External(nn.Module):
    """An image-to-image network of another project, wrapped to fulfill irformer's network contract.

    For networks of `spandrel` and `spandrel_extra_arches`, spandrel's descriptor provides the size requirements and the way to call the
    network; for others, `size_multiple` states the multiple. Images of other sizes are padded by reflection, or by replicating their edge
    if they are too small, and the output is cropped.

    Args:
        network: maps [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W].
        scale: upscaling factor.
        in_channels: image channels, 3 (RGB) or 1.
        size_multiple: height and width of the network's input must be multiples of this; null uses spandrel's value, or 1.

    Raises:
        UserError: the scale or the channels differ from those in spandrel's descriptor.
    """

    test_padding: TestPadding = "reflect_min"

    def __init__(self, network: nn.Module, scale: Scale = 1, in_channels: Channels = 3, size_multiple: Window | None = None) -> None:
        super().__init__()
        name = type(network).__name__
        if not isinstance(network, nn.Module):
            raise UserError(f"model.network is a {name}: expected a torch.nn.Module")
        descriptor = _find_descriptor(network)
        if descriptor is not None:
            found, channels = descriptor.scale, (descriptor.input_channels, descriptor.output_channels)
            if found != scale:
                raise UserError(f"model.scale={scale}: this {name} upscales by {found}; change its arguments, or choose another task")
            if channels != (in_channels, in_channels):
                what = f"takes {channels[0]} channels and returns {channels[1]}"
                raise UserError(f"model.in_channels={in_channels}: this {name} {what}; change its arguments, or choose another task")
        requirements = descriptor.size_requirements if descriptor is not None else None
        self.network = network
        self.scale = scale
        self.in_channels = in_channels
        self.size_multiple: int = size_multiple or (requirements.multiple_of if requirements is not None else 1)
        self.minimum_size: int = requirements.minimum if requirements is not None else 0
        self.square: bool = requirements is not None and requirements.square
        self._call = _get_call(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_call"}  # spandrel's functions cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._call = _get_call(_find_descriptor(self.network))

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        H, W = lq.shape[2:]
        out = self._call(self.network, self._pad(lq))
        if not isinstance(out, Tensor):
            raise UserError(f"{type(self.network).__name__} returns a {type(out).__name__}: expected one tensor, the restored images")
        return out[:, :, : H * self.scale, : W * self.scale]

    def _pad(self, x: Tensor) -> Tensor:
        """Pad images to a size that the network accepts; always a copy, because some networks modify their input in place."""
        height, width = (max(size, self.minimum_size) for size in x.shape[2:])
        if self.square:
            height = width = max(height, width)
        bottom = height + -height % self.size_multiple - x.shape[2]
        right = width + -width % self.size_multiple - x.shape[3]
        if not (bottom or right):
            return x.clone()
        mode = "reflect" if bottom < x.shape[2] and right < x.shape[3] else "replicate"
        return F.pad(x, (0, right, 0, bottom), mode=mode)


def _get_call(descriptor: Any) -> Callable[[Any, Tensor], Any]:
    """Return the function that calls a network: some need further inputs, or return several outputs."""
    return getattr(descriptor, "_call_fn", lambda network, image: network(image))


def _find_descriptor(network: nn.Module) -> Any:
    """Return spandrel's descriptor of a network; None if the network is not one of spandrel's."""
    package = type(network).__module__.partition(".")[0]
    registry = {"spandrel": "MAIN_REGISTRY", "spandrel_extra_arches": "EXTRA_REGISTRY"}.get(package)
    if registry is None:
        return None
    state = {name: value.detach() for name, value in network.state_dict().items()}
    for support in getattr(sys.modules[package], registry).architectures():
        architecture = support.architecture
        # Only the architecture that builds networks of this class: others may have weights with the same names.
        if type(network).__module__.startswith(f"{type(architecture).__module__}.") and architecture.detect(state):
            try:
                with torch.random.fork_rng(devices=[]):
                    return architecture.load(state)
            except Exception:  # sizes that cannot be inferred from the weights; the configuration states the requirements
                return None
    return None
