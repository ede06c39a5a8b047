"""Networks of irformer and their official counterparts with the same weights, built by spandrel."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from irformer.config.compose import build_network, model_config
from irformer.errors import UserError
from irformer.weights.formats import official_weights

OFFICIAL = "official"
TOLERANCE = 1e-4  # of the outputs of two networks with the same weights


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
        The networks on the CPU by norm, and under `official`; and a line if the official network is not installed.

    Raises:
        UserError: unknown model or norm.
    """
    networks: dict[str, Any] = {norm: build(model, norm, scale) for norm in norms}
    if "ln" not in networks or not official:
        return networks, ""
    missing = missing_peer(model)
    if not missing:
        networks[OFFICIAL] = official_twin(networks["ln"], model, patch_size)
    return networks, missing


def missing_peer(model: str) -> str:
    """Return a line that says how to install the official code of a model; empty if it is installed."""
    package = _package(model)
    return "" if find_spec(package) else f"{model}: no comparison with the official network: pip install {package}"


def official_twin(network: nn.Module, model: str, patch_size: int | None = None) -> nn.Module:
    """Build the official network with the weights of one of ours, in evaluation mode.

    Args:
        network: a network of irformer with LayerNorm, on the CPU.
        model: its name.
        patch_size: training patch size in pixels. SwinIR and DRCT keep the attention masks of this size and compute those of others in
            each call; None selects the size in their test scripts.

    Raises:
        UserError: the official code has no such network, or its output differs.
    """
    import spandrel

    keeps_masks = type(network).__name__ in ("SwinIR", "DRCT")
    weights = official_weights(network, patch_size if keeps_masks else None)
    registry = spandrel.MAIN_REGISTRY
    if _package(model) == "spandrel_extra_arches":
        from spandrel_extra_arches import EXTRA_REGISTRY

        registry = EXTRA_REGISTRY
    architecture = next((support.architecture for support in registry.architectures() if support.architecture.detect(weights)), None)
    if architecture is None:
        raise UserError(f"model={model}: spandrel {spandrel.__version__} does not recognize its weights; leave it out of --models")
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


def _package(model: str) -> str:
    return "spandrel_extra_arches" if model.startswith("restormer") else "spandrel"
