"""The contract of networks: its attributes, their defaults, and checks.

A network is a `torch.nn.Module` that maps [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], for any H and W. It
declares `scale` and `in_channels`; everything else has a default. `model=external` (`irformer.models.External`) declares them for
networks of other projects.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from irformer.errors import UserError

TestPadding = Literal["flip_always", "reflect_min"]

# Maximum values that a network may declare, far above those of published networks.
_MAXIMUM = {"scale": 64, "in_channels": 1024, "size_multiple": 1024}


class Stream(NamedTuple):
    """The residual stream of a network: the norms that read it, and the weights that set its magnitude.

    Args:
        norms: patterns of the names of the norms that read the stream for the branches.
        final: name of the norm at its end.
        start: patterns of the names of the weights to which the first features of the stream are proportional.
        branches: patterns of the names of the weights to which the outputs of the branches are proportional.
        biases: patterns of the names of the biases of layers on the stream that are otherwise homogeneous.
    """

    norms: tuple[str, ...]
    final: str
    start: tuple[str, ...]
    branches: tuple[str, ...]
    biases: tuple[str, ...]


class Network(Protocol):
    """The contract of a network. Only `scale` and `in_channels` are required; the functions below apply the defaults."""

    scale: int
    """Upscaling factor."""
    in_channels: int
    """Image channels, 3 (RGB) or 1 (gray)."""
    size_multiple: int
    """Multiple to which the network, and `task.protocol.padding=flip_always`, pads height and width. Default: 1."""
    test_padding: TestPadding
    """Padding in the network's official test code: `flip_always` adds mirrored pixels up to the next larger multiple; `reflect_min` (the
    default) leaves padding to the network."""
    channels_first: bool
    """Whether the groups output [B, C, H, W] (the default) instead of [B, H, W, C]."""
    channels_last: bool
    """Whether the network computes in torch.channels_last, whatever the memory format of its input. Default: not `channels_first`."""
    checkpointing: bool
    """Whether training recomputes the activations of each group in the backward pass instead of keeping them. The network starts with
    False, and `model.checkpointing=true` sets True; a network without this attribute does not support it."""

    @property
    def groups(self) -> Mapping[str, nn.Module]:
        """Groups of blocks by name, in order of depth, for the probe. Default: none."""
        ...

    @property
    def group_channels(self) -> Mapping[str, int]:
        """Output channels C of each group. Default: measured on a small image."""
        ...

    @property
    def layer_names(self) -> Mapping[str, Sequence[str]]:
        """Patterns of module names by kind of layers (`blocks`, `attention`, `mlp`, `norms`), for the probe. Default: none."""
        ...

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm that reads the output of the last group, for the probe. Default: none."""
        ...

    @property
    def stream(self) -> Stream | None:
        """The residual stream, for the probe, if its magnitude is proportional to weights. Default: none."""
        ...


def multiple_of(network: nn.Module) -> int:
    """Return the multiple to which the height and width of a network's input are padded."""
    multiple: Any = getattr(network, "size_multiple", 1)
    return multiple


def padding_of(network: nn.Module) -> TestPadding:
    """Return how the network's official test code pads images."""
    padding: Any = getattr(network, "test_padding", "reflect_min")
    return padding


def groups_of(network: nn.Module) -> Mapping[str, nn.Module]:
    """Return a network's groups of blocks by name, in order of depth; empty if it declares none."""
    groups: Any = getattr(network, "groups", {})
    return groups


def layer_names_of(network: nn.Module) -> Mapping[str, Sequence[str]]:
    """Return the patterns of module names that a network declares for each kind of layers; empty if it declares none."""
    names: Any = getattr(network, "layer_names", {})
    return names


def final_norm_of(network: nn.Module) -> nn.Module | None:
    """Return the norm that reads the output of a network's last group; None if it declares none."""
    norm: Any = getattr(network, "final_norm", None)
    return norm


def stream_of(network: nn.Module) -> Stream | None:
    """Return the residual stream of a network; None if it declares none."""
    stream: Any = getattr(network, "stream", None)
    return stream


def is_channels_first(network: nn.Module) -> bool:
    """Return whether a network's groups output [B, C, H, W] instead of [B, H, W, C]."""
    first: Any = getattr(network, "channels_first", True)
    return first


def is_channels_last(network: nn.Module) -> bool:
    """Return whether a network computes in torch.channels_last, whatever the memory format of its input."""
    last: Any = getattr(network, "channels_last", not is_channels_first(network))
    return last


def channels_of_groups(network: nn.Module) -> list[int]:
    """Return the output channels C of each group, in order of depth: as declared, or measured on a small image."""
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


def enable_checkpointing(network: nn.Module, name: str) -> None:
    """Make a network recompute the activations of its groups in the backward pass.

    Args:
        network: the network.
        name: name of the network in messages, for example its class.

    Raises:
        UserError: the network does not support it.
    """
    if not isinstance(getattr(network, "checkpointing", None), bool):
        raise UserError(
            f"model.checkpointing=true: {name} does not support gradient checkpointing, because it has no attribute `checkpointing`; use "
            "model.checkpointing=false, and max_batch_per_device=N to save memory"
        )
    network.checkpointing = True  # type: ignore[assignment]


def require_network(network: Any, name: str) -> None:
    """Check the attributes of a network.

    Args:
        network: any object.
        name: name of the network in messages, for example its class.

    Raises:
        UserError: the network does not fulfill the contract.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} is not a network: expected a torch.nn.Module, found {type(network).__name__}")
    missing = [key for key in ("scale", "in_channels") if not hasattr(network, key)]
    if missing:
        raise UserError(
            f"{name} is not a network: it has no {' and no '.join(missing)}; set them as attributes, or use "
            f"model=external model.network._target_={name}"
        )
    for key, maximum in _MAXIMUM.items():
        value = getattr(network, key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
            raise UserError(f"{name}: {key}={_shown(value)}: expected a whole number from 1 to {maximum}")
    padding = padding_of(network)
    if padding not in get_args(TestPadding):
        raise UserError(f"{name}: test_padding={_shown(padding)}: expected {' or '.join(get_args(TestPadding))}")
    groups = groups_of(network)
    if not isinstance(groups, Mapping) or not all(isinstance(key, str) and isinstance(m, nn.Module) for key, m in groups.items()):
        raise UserError(f"{name}: groups is a {type(groups).__name__}: expected a dict that maps group names to modules")
    channels: Any = getattr(network, "group_channels", None)
    if channels is not None and (not isinstance(channels, Mapping) or any(not isinstance(channels.get(key), int) for key in groups)):
        raise UserError(f"{name}: group_channels={_shown(channels)}: expected a dict that maps group names to channels")
    names = layer_names_of(network)
    if not isinstance(names, Mapping) or not all(isinstance(patterns, list | tuple) for patterns in names.values()):
        raise UserError(f"{name}: layer_names={_shown(names)}: expected a dict that maps kinds of layers to lists of module names")


def require_images(network: nn.Module, name: str, side: int) -> None:
    """Check a network on two small images, in evaluation mode, leaving its state and the random number generators unchanged.

    Args:
        network: passes `require_network`.
        name: name of the network in messages.
        side: side of the first image in pixels; the second is one pixel wider and two pixels higher, so no multiple divides its sides.

    Raises:
        UserError: the network fails, or does not return an image of the expected size.
    """
    for height, width in ((side, side), (side + 2, side + 1)):
        what = f"{name}: on an image of {width}x{height} pixels"
        try:
            out = _restored(network, height, width)
        except UserError:
            raise
        except Exception as error:  # networks fail on unsupported sizes in many ways
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            remedy = (
                ""
                if (height, width) == (side, side)
                else "; a network must accept any size, and model=external pads to model.size_multiple"
            )
            raise UserError(f"{what} it fails ({type(error).__name__}: {line[:200]}){remedy}") from error
        scale: Any = network.scale
        expected = (1, network.in_channels, scale * height, scale * width)
        found = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        if found != expected:
            raise UserError(f"{what} it returns {_shown(found)}: expected one tensor of shape {expected}")
        if not out.is_floating_point():
            raise UserError(f"{what} it returns {out.dtype}: expected floating point values in [0, 1]")


def _restored(network: nn.Module, height: int, width: int) -> Any:
    """Return the output of a network in evaluation mode for a uniform gray image, on the device and with the dtype of its weights."""
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    devices = [first.device] if first.device.type == "cuda" else []
    channels: Any = network.in_channels
    with torch.random.fork_rng(devices=devices), evaluation_mode(network), torch.no_grad():
        return network(torch.full((1, channels, height, width), 0.5, dtype=first.dtype, device=first.device))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode within a block; afterwards, each module has its former mode."""
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
