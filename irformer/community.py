"""Networks of other projects: whatever spandrel knows, behind the interface of the networks here."""

from typing import Any

from torch import Tensor, nn

from irformer.building import bounded, require_network
from irformer.errors import UserError
from irformer.trust import shortened


class CommunityNetwork(nn.Module):
    """A network that spandrel has built, for evaluation alone: no gradients flow through it, and its output lies in [0, 1].

    Args:
        descriptor: spandrel's description of a network from image to image; it pads to the sizes that the network can take.
    """

    channels_first = True
    test_padding = "reflect_min"

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        self.scale: int = descriptor.scale
        self.in_channels: int = descriptor.input_channels
        self.size_multiple: int = descriptor.size_requirements.multiple_of
        self._descriptor = descriptor

    @property
    def groups(self) -> dict[str, nn.Module]:
        """None that are known: nothing to probe."""
        return {}

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], any H and W."""
        return self._descriptor(lq).clone()  # the copy is no inference tensor, which could not be used in training code


def load_community(weights: dict[str, Tensor]) -> tuple[CommunityNetwork, str] | None:
    """Let spandrel rebuild a network from its weights.

    Args:
        weights: by their names, wrapping taken off.

    Returns:
        The network in evaluation mode and the name of its architecture, or None where spandrel does not know it.

    Raises:
        UserError: spandrel is not installed, or it knows the network and cannot build it, or the network is none from image to image.
    """
    try:
        import spandrel
    except ImportError:
        raise UserError(
            "is no SwinIR, HAT, DRCT or Restormer; other networks need spandrel, which is not installed: pip install irformer[community]"
        ) from None
    _require_few_numbers(weights)
    try:
        with bounded(len(weights), sum(value.numel() for value in weights.values())):
            descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))
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


def _require_few_numbers(weights: dict[str, Tensor]) -> None:
    """Refuse names that count far beyond the weights: the highest number in a name is how many layers are built."""
    most = 16 * len(weights) + 100
    for name in weights:
        number = next((part for part in name.split(".") if part.isdigit() and (len(part) > 9 or int(part) > most)), None)
        if number is not None:
            raise UserError(f"{shortened(name)}: numbered far beyond its {len(weights)} weights; no network has such names")
