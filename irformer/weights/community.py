"""Networks of other projects: whatever spandrel knows, behind the interface of the networks here."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.models.interface import require_network
from irformer.weights.building import bounded


def _craft(network: Any, image: Tensor) -> Tensor:
    """CRAFT as its authors' code has it. spandrel's forward mirrors up to a whole window more, on top of every other padding."""
    network.mean = network.mean.type_as(image)
    shallow = network.conv_first((image - network.mean) * network.img_range)
    deep = network.conv_after_body(network.forward_features(shallow)) + shallow
    return network.upsample(deep) / network.img_range + network.mean


# Architectures whose forward pads images of sizes that need no padding, by spandrel's ids: what takes its place.
_WITHOUT_PADDING: dict[str, Callable[[Any, Tensor], Tensor]] = {"CRAFT": _craft}


class CommunityNetwork(nn.Module):
    """A network that spandrel has built, for evaluation alone: no gradients flow through it, and its output lies in [0, 1].

    Images are padded once: by reflection to the sizes that the network can take, which is nothing where the caller has padded already.

    Args:
        descriptor: spandrel's description of a network from image to image; it pads to the sizes that the network can take.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        self.architecture: str = descriptor.architecture.id
        self.scale: int = descriptor.scale
        self.in_channels: int = descriptor.input_channels
        self.size_multiple: int = descriptor.size_requirements.multiple_of
        if self.architecture in _WITHOUT_PADDING:
            self.network.forward = partial(_WITHOUT_PADDING[self.architecture], self.network)
        self._descriptor = descriptor

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        with _quiet():
            out = self._descriptor(lq.clone())  # some networks work on their input in place
        return out.clone()  # the copy is no inference tensor, which could not be used in training code


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warning of torch.meshgrid about its next default: it is about code of others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        yield


def load_community(weights: dict[str, Tensor], architecture: str | None = None) -> tuple[CommunityNetwork, str] | None:
    """Let spandrel rebuild a network from its weights.

    Args:
        weights: by their names, wrapping taken off.
        architecture: spandrel's id of the network's architecture, where a record says it; None finds it by the names of the weights.

    Returns:
        The network in evaluation mode and the name of its architecture, or None where spandrel does not know it.

    Raises:
        UserError: spandrel is not installed, or it knows the network and cannot build it, or the network is none from image to image, or
            the weights are not of the architecture.
    """
    try:
        import spandrel
    except ImportError:
        raise UserError(
            "is no SwinIR, HAT, DRCT or Restormer; other networks need spandrel, which is not installed: pip install irformer[community]"
        ) from None
    if architecture is None:
        load = spandrel.ModelLoader().load_from_state_dict
    else:
        known = {support.architecture.id: support.architecture for support in spandrel.MAIN_REGISTRY.architectures()}
        if architecture not in known:
            raise UserError(f"spandrel={shortened(architecture)} in its record: this version of spandrel has no such architecture")
        if not known[architecture].detect(weights):
            raise UserError(f"spandrel={architecture} in its record: its weights are not named as those of this architecture")
        load = known[architecture].load
    _require_few_numbers(weights)
    try:
        with _quiet(), bounded(len(weights), sum(value.numel() for value in weights.values())):
            descriptor = load(dict(weights))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:  # a network of its own project each, with errors of its own
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"spandrel cannot build it: {shortened(' '.join(line.strip() for line in lines[:2]), 300)}") from None
    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.input_channels != descriptor.output_channels:
        raise UserError(f"holds {name}, which does not map an image to an image of as many channels")
    network = CommunityNetwork(descriptor.eval()).eval()
    require_network(network, name)
    return network, name


def recorded_architecture(model: Mapping[str, Any]) -> str | None:
    """The architecture that the record of an exported community network names, spandrel's id; None in records of networks of irformer.

    Args:
        model: what a record says of the network; of a community network `name` and `spandrel` alone, for spandrel builds it by its weights.

    Raises:
        UserError: the record says more than that, or names no architecture.
    """
    if "spandrel" not in model:
        return None
    beside = [key for key in model if key not in ("name", "spandrel")]
    if beside:
        raise UserError(f"{shortened(beside[0])} beside spandrel in its record: spandrel builds a network by its weights alone")
    if not isinstance(model["spandrel"], str):
        raise UserError(f"spandrel={shortened(model['spandrel'])} in its record: expected the id of an architecture")
    return model["spandrel"]


def community_weights(network: CommunityNetwork) -> dict[str, Tensor]:
    """The weights of a community network under their own names, in memory of their own, after spandrel has rebuilt a network from them.

    Raises:
        UserError: spandrel does not rebuild the network from its own weights.
    """
    weights = {name: value.detach().cpu().clone() for name, value in network.network.state_dict().items()}
    load_community(weights, network.architecture)
    return weights


def _require_few_numbers(weights: dict[str, Tensor]) -> None:
    """Refuse names that count far beyond the weights: the highest number in a name is how many layers are built."""
    most = 16 * len(weights) + 100
    for name in weights:
        number = next((part for part in name.split(".") if part.isdigit() and (len(part) > 9 or int(part) > most)), None)
        if number is not None:
            raise UserError(f"{shortened(name)}: numbered far beyond its {len(weights)} weights; no network has such names")
