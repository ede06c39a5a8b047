"""Networks of irformer and their official counterparts with the same weights, built by spandrel."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from irformer.config.compose import build_network, model_config
from irformer.errors import UserError
from irformer.models import DRCT, Restormer, SwinIR
from irformer.weights.formats import official_weights

OFFICIAL = "official"
TOLERANCE = 1e-4  # of the outputs of two networks with the same weights


class NoPeerError(UserError):
    """There is no official network to compare with."""


def build(model: str, norm: str, scale: int | None) -> nn.Module:
    """Build a network of irformer with the same random weights in each call, in evaluation mode.

    Args:
        model: name of the model.
        norm: name of the norm.
        scale: upscaling factor; None uses the default of the network's class.

    Raises:
        UserError: unknown model or norm.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(model_config(model, norm, scale, 3)).eval()


def networks_to_compare(
    model: str, scale: int | None, norms: Sequence[str], official: bool = True, patch_size: int | None = None
) -> tuple[dict[str, Any], str]:
    """Build networks of irformer and, if LayerNorm is among their norms, the official network with the same weights.

    Args:
        model: name of the model.
        scale: upscaling factor; None uses the default of the network's class.
        norms: names of norms.
        official: whether to build the official network.
        patch_size: see `official_twin`.

    Returns:
        The networks on the CPU by norm, and under `official`; and a line if there is no official network to compare with.

    Raises:
        UserError: unknown model or norm.
    """
    networks: dict[str, Any] = {norm: build(model, norm, scale) for norm in norms}
    if "ln" not in networks or not official:
        return networks, ""
    try:
        networks[OFFICIAL] = official_twin(networks["ln"], model, patch_size)
    except NoPeerError as error:
        return networks, f"{model} is not compared with an official network: {error}"
    return networks, ""


def official_twin(network: nn.Module, model: str, patch_size: int | None = None) -> nn.Module:
    """Build the official network with the weights of one of ours, in evaluation mode.

    Args:
        network: a network of irformer with LayerNorm, on the CPU.
        model: its name.
        patch_size: training patch size in pixels. SwinIR and DRCT keep the attention masks of this size and compute those of others in
            each call; None selects the size in their test scripts.

    Raises:
        NoPeerError: the package with the official code is not installed, or it has no such network.
        UserError: the outputs of the two networks differ.
    """
    package = "spandrel_extra_arches" if isinstance(network, Restormer) else "spandrel"
    if find_spec(package) is None:
        raise NoPeerError(f"{package}, which contains it, is not installed: pip install {package}")
    import spandrel

    keeps_masks = isinstance(network, SwinIR | DRCT)
    try:
        weights = official_weights(network, patch_size if keeps_masks else None)
    except UserError as error:
        raise NoPeerError(str(error)) from None
    registry = spandrel.MAIN_REGISTRY
    if package == "spandrel_extra_arches":
        from spandrel_extra_arches import EXTRA_REGISTRY

        registry = EXTRA_REGISTRY
    architecture = next((support.architecture for support in registry.architectures() if support.architecture.detect(weights)), None)
    if architecture is None:
        raise NoPeerError(f"spandrel {spandrel.__version__} does not recognize its weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch.meshgrid and torch.jit, in spandrel's code
        twin: nn.Module = architecture.load(weights).model.eval()
        difference = output_difference(network, twin)
    if difference > TOLERANCE:
        raise UserError(f"model={model}: the outputs of irformer and of spandrel {spandrel.__version__} differ by {difference:.2g}")
    return twin


def output_difference(network: nn.Module, twin: nn.Module) -> float:
    """Return the largest difference between the outputs of two networks for a random image, over the largest output."""
    multiple: int = network.size_multiple  # type: ignore[assignment]
    image = torch.rand(1, 3, 2 * multiple, 2 * multiple, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network(image), twin(image)
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
