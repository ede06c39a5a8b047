"""What the rest of the project asks of a network: the contract, its defaults, and the checks of both.

A network is a `torch.nn.Module` that maps [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], for any H and W. It
declares `scale` and `in_channels`; everything else has a default. `model=external` (`irformer.models.External`) declares them for a
network of another project.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from irformer.errors import UserError

TestPadding = Literal["flip_always", "reflect_min"]

# The largest values that a network may declare, far above those of published ones.
_MOST = {"scale": 64, "in_channels": 1024, "size_multiple": 1024}


class Network(Protocol):
    """The contract of a network. Only `scale` and `in_channels` are required; the functions below apply the defaults."""

    scale: int
    """Output pixels for each input pixel, along each side."""
    in_channels: int
    """Image channels, 3 (RGB) or 1 (gray)."""
    size_multiple: int
    """What the sides are padded to by the network itself, and by `task.protocol.padding=flip_always`. Default 1."""
    test_padding: TestPadding
    """What the network's official test code does to an image before the network: `flip_always` adds mirrored pixels up to the next
    greater multiple, `reflect_min` (the default) leaves padding to the network."""
    channels_first: bool
    """Whether the outputs of the groups are [B, C, H, W] (the default) and not [B, H, W, C]."""

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """The groups of blocks by name, in the order of depth, for the probe. Default: none."""
        ...

    @property
    def group_channels(self) -> Mapping[str, int]:
        """The channels C of each group's output. Default: measured on a small image."""
        ...


def multiple_of(network: nn.Module) -> int:
    """What the sides of a network's input are padded to."""
    multiple: Any = getattr(network, "size_multiple", 1)
    return multiple


def padding_of(network: nn.Module) -> TestPadding:
    """What the network's official test code does to an image before the network."""
    padding: Any = getattr(network, "test_padding", "reflect_min")
    return padding


def groups_of(network: nn.Module) -> Mapping[str, nn.Module]:
    """A network's groups of blocks by name, in the order of depth; empty where it names none."""
    groups: Any = getattr(network, "groups", {})
    return groups


def is_channels_first(network: nn.Module) -> bool:
    """Whether the outputs of a network's groups are [B, C, H, W] and not [B, H, W, C]."""
    first: Any = getattr(network, "channels_first", True)
    return first


def channels_of_groups(network: nn.Module) -> list[int]:
    """The channels C of the output of each group, in the order of depth: as declared, or as measured on a small image."""
    groups = groups_of(network)
    declared: Any = getattr(network, "group_channels", None)
    if declared is not None:
        return [declared[name] for name in groups]
    measured: dict[str, int] = {}
    axis = 1 if is_channels_first(network) else -1
    hooks = [
        group.register_forward_hook(lambda _m, _i, out, name=name: measured.update({name: out.shape[axis]}))
        for name, group in groups.items()
    ]
    try:
        _restored(network, 32, 32)
    finally:
        for hook in hooks:
            hook.remove()
    return [measured[name] for name in groups if name in measured]


def require_network(network: Any, name: str) -> None:
    """Check what a network declares.

    Args:
        network: any object.
        name: what messages call it, the name of its class for example.

    Raises:
        UserError: it does not fulfil the contract; what is missing or wrong is named.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} is no network: expected a torch.nn.Module, found a {type(network).__name__}")
    lacking = [key for key in ("scale", "in_channels") if not hasattr(network, key)]
    if lacking:
        raise UserError(
            f"{name} is no network: it has no {' and no '.join(lacking)}; set them as attributes, or name the class by "
            f"model=external model.network._target_={name}"
        )
    for key, most in _MOST.items():
        value = getattr(network, key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise UserError(f"{name}: {key}={_shown(value)}: expected a whole number from 1 to {most}")
    padding = padding_of(network)
    if padding not in get_args(TestPadding):
        raise UserError(f"{name}: test_padding={_shown(padding)}: expected {' or '.join(get_args(TestPadding))}")
    groups = groups_of(network)
    if not isinstance(groups, Mapping) or not all(isinstance(key, str) and isinstance(m, nn.Module) for key, m in groups.items()):
        raise UserError(f"{name}: groups is a {type(groups).__name__}: expected a dict from the names of its groups to their modules")
    channels: Any = getattr(network, "group_channels", None)
    if channels is not None and (not isinstance(channels, Mapping) or any(not isinstance(channels.get(key), int) for key in groups)):
        raise UserError(f"{name}: group_channels={_shown(channels)}: expected a dict from the names of its groups to their channels")


def require_images(network: nn.Module, name: str, side: int) -> None:
    """Try a network on two small images, in evaluation mode and without a trace in its state or in random numbers.

    Args:
        network: fulfils `require_network`.
        name: what messages call it.
        side: of the first image in pixels; the second is one pixel wider and two higher, which no multiple divides.

    Raises:
        UserError: it fails, or does not return an image of the expected size.
    """
    for height, width in ((side, side), (side + 2, side + 1)):
        what = f"{name}: on an image of {width}x{height} pixels"
        try:
            out = _restored(network, height, width)
        except UserError:
            raise
        except Exception as error:  # whatever a network does with a size that it was not made for
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            remedy = "" if (height, width) == (side, side) else "; a network takes any size, model=external pads to model.size_multiple"
            raise UserError(f"{what} it fails ({type(error).__name__}: {line[:200]}){remedy}") from error
        scale: Any = network.scale
        expected = (1, network.in_channels, scale * height, scale * width)
        found = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        if found != expected:
            raise UserError(f"{what} it returns {_shown(found)}: expected one tensor of shape {expected}")
        if not out.is_floating_point():
            raise UserError(f"{what} it returns {out.dtype}: expected floating point values in [0, 1]")


def _restored(network: nn.Module, height: int, width: int) -> Any:
    """What a network in evaluation mode makes of one gray image of a size, on the device and in the type of its weights."""
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    devices = [first.device] if first.device.type == "cuda" else []
    channels: Any = network.in_channels
    with torch.random.fork_rng(devices=devices), evaluation_mode(network), torch.no_grad():
        return network(torch.full((1, channels, height, width), 0.5, dtype=first.dtype, device=first.device))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode for a while, each module as it was afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
