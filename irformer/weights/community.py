"""Networks of other projects, built by spandrel and wrapped to fulfill irformer's network contract."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.models.interface import require_network
from irformer.models.module_tree import repeated_parts
from irformer.weights.building import bounded


def _craft(network: Any, image: Tensor) -> Tensor:
    """Run CRAFT as in its official code: spandrel's forward adds up to a whole window of mirrored pixels to any other padding."""
    network.mean = network.mean.type_as(image)
    shallow = network.conv_first((image - network.mean) * network.img_range)
    deep = network.conv_after_body(network.forward_features(shallow)) + shallow
    return network.upsample(deep) / network.img_range + network.mean


# Replacements for the forward of architectures that pad images although their size needs no padding, by spandrel's ids.
_WITHOUT_PADDING: dict[str, Callable[[Any, Tensor], Tensor]] = {"CRAFT": _craft}


class CommunityNetwork(nn.Module):
    """A network built by spandrel, for evaluation only: it does not compute gradients, and its output is in [0, 1].

    Images are padded once, by reflection, to sizes that the network accepts; images that the caller has padded are not padded again.

    Args:
        descriptor: spandrel's descriptor of an image-to-image network; it applies the padding.
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
        self._groups, self._blocks = ([f"network.{name}" for name in names] for names in repeated_parts(self.network))

    @property
    def groups(self) -> dict[str, nn.Module]:
        """The repeated modules in the network's module tree."""
        return {name: self.get_submodule(name) for name in self._groups}

    @property
    def layer_names(self) -> dict[str, list[str]]:
        """The names of the modules that groups consist of, if they are repeated as well."""
        return {"blocks": self._blocks}

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        with _ignore_warnings():
            out = self._descriptor(lq.clone())  # some networks modify their input in place
        return out.clone()  # inference tensors cannot be used in training code; the copy can


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Ignore the warning about torch.meshgrid's future default, which concerns third-party code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        yield


def load_community(weights: dict[str, Tensor], architecture: str | None = None) -> tuple[CommunityNetwork, str] | None:
    """Build a network from its weights with spandrel.

    Args:
        weights: tensors by name, without wrapping.
        architecture: spandrel's id of the architecture, if a record contains it; None detects it from the names of the weights.

    Returns:
        The network in evaluation mode and the name of its architecture, or None if spandrel does not know it.

    Raises:
        UserError: spandrel is not installed or cannot build the network, the network does not map images to images, or the weights do
            not match the architecture.
    """
    try:
        import spandrel
    except ImportError:
        raise UserError(
            "is not SwinIR, HAT, DRCT or Restormer; other networks need spandrel, which is not installed: pip install irformer[community]"
        ) from None
    if architecture is None:
        load = spandrel.ModelLoader().load_from_state_dict
    else:
        known = {support.architecture.id: support.architecture for support in spandrel.MAIN_REGISTRY.architectures()}
        if architecture not in known:
            raise UserError(f"spandrel={shortened(architecture)} in its record: this version of spandrel has no such architecture")
        if not known[architecture].detect(weights):
            raise UserError(f"spandrel={architecture} in its record: the names of its weights do not match this architecture")
        load = known[architecture].load
    _require_plausible_numbers(weights)
    try:
        with _ignore_warnings(), bounded(len(weights), sum(value.numel() for value in weights.values())):
            descriptor = load(dict(weights))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:  # each architecture raises different errors
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"spandrel cannot build it: {shortened(' '.join(line.strip() for line in lines[:2]), 300)}") from None
    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.input_channels != descriptor.output_channels:
        raise UserError(f"contains {name}, which does not map images to images with the same number of channels")
    network = CommunityNetwork(descriptor.eval()).eval()
    require_network(network, name)
    return network, name


def recorded_architecture(model: Mapping[str, Any]) -> str | None:
    """Return spandrel's id of the architecture in the record of an exported network; None for irformer's own networks.

    Args:
        model: the record's description of the network; for community networks, only `name` and `spandrel`.

    Raises:
        UserError: the record contains other keys, or does not name an architecture.
    """
    if "spandrel" not in model:
        return None
    unknown = [key for key in model if key not in ("name", "spandrel")]
    if unknown:
        raise UserError(f"{shortened(unknown[0])} besides spandrel in its record: spandrel builds a network from its weights alone")
    if not isinstance(model["spandrel"], str):
        raise UserError(f"spandrel={shortened(model['spandrel'])} in its record: expected the id of an architecture")
    return model["spandrel"]


def community_weights(network: CommunityNetwork) -> dict[str, Tensor]:
    """Return a copy of a community network's weights, under their original names, after checking that spandrel can load them.

    Raises:
        UserError: spandrel cannot rebuild the network from its weights.
    """
    weights = {name: value.detach().cpu().clone() for name, value in network.network.state_dict().items()}
    load_community(weights, network.architecture)
    return weights


def _require_plausible_numbers(weights: dict[str, Tensor]) -> None:
    """Reject names with numbers far beyond the number of weights: the highest number determines how many layers are built."""
    most = 16 * len(weights) + 100
    for name in weights:
        number = next((part for part in name.split(".") if part.isdigit() and (len(part) > 9 or int(part) > most)), None)
        if number is not None:
            raise UserError(f"{shortened(name)}: the number is far beyond its {len(weights)} weights; no network has such names")
