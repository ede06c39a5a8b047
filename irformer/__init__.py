"""irformer: train, evaluate and inspect image restoration transformers, with any normalization.

From Python:

>>> from irformer import create_model, list_models, list_norms
>>> network = create_model("hat_tiny", norm="iln", scale=4)
>>> network.scale, network.size_multiple
(4, 8)
>>> "swinir" in list_models(), "iln" in list_norms()
(True, True)

The functions import their dependencies when they are called, so importing irformer itself is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irformer.core.version import __version__

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "bounded", "create_model", "list_models", "list_norms", "load_network"]


def create_model(
    name: str, norm: str = "ln", scale: int | None = None, in_channels: int = 3, overrides: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a randomly initialized network, like `python train.py model=NAME norm=NORM`.

    >>> light = create_model("swinir_light", scale=2, overrides={"depths": [2, 2], "num_heads": [6, 6], "norm.ends": "none"})
    >>> len(light.groups)
    2

    Args:
        name: one of `list_models()`.
        norm: one of `list_norms()`.
        scale: upscaling factor; None uses the default of the network's class: 2 for networks with an upsampler, 1 for Restormer.
        in_channels: image channels, 3 (RGB) or 1.
        overrides: other arguments of the network by dotted keys: those in configs/model, and those in configs/norm prefixed with `norm.`.

    Returns:
        The network in training mode, which maps [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W].

    Raises:
        UserError: unknown network, norm or argument, or an invalid value.
    """
    from irformer.config.compose import build_network, model_config, with_named_norms
    from irformer.weights.overrides import override_model

    model = model_config(name, norm, scale, in_channels)
    return build_network(override_model(model, with_named_norms(overrides or {})))


def load_network(path: str | Path, overrides: Mapping[str, Any] | None = None, trust: Sequence[str] = ()) -> nn.Module:
    """Load a trained network from the folder of a run or a weights file: irformer's, official, or of any network that spandrel supports.

    Weights on the Hugging Face Hub have the address `hf://OWNER/REPO[@REVISION][/FILE]`. They need the extra `irformer[hub]`.

    >>> load_network("epoch=0.ckpt")
    Traceback (most recent call last):
    irformer.errors.UserError: epoch=0.ckpt: no such file; expected a run's folder or a weights file (.safetensors, .pth, .pt, .ckpt)

    Args:
        path: folder, file or address. An address without a file means model.safetensors, or the only .safetensors file.
        overrides: changes to the arguments inferred from the file, by dotted keys, e.g. `{"pixel_range": 255.0}`.
        trust: packages besides irformer whose classes the file may name, e.g. `["mypkg"]`; only for files from a known source. Packages
            in the environment variable IRFORMER_TRUST (separated by commas) are added.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: the file does not exist, is damaged, would run code, or contains non-finite weights, an unknown network, or only a part
            of a network.
    """
    from irformer.config.compose import with_named_norms
    from irformer.core.trust import Trust
    from irformer.weights.checkpoints import load_checkpoint

    return load_checkpoint(path, with_named_norms(overrides or {}), Trust(trust)).network


def bounded(network: nn.Module, memory: str | int = "auto") -> nn.Module:
    """Return a network that computes the same as another one, whatever the size of the image, within a memory bound.

    It processes an image in bands of rows. Unlike tiles, bands do not change the result: all statistics are those of the whole image.

    >>> small = create_model("swinir_tiny", norm="iln", scale=2).eval()
    >>> within = bounded(small, "500MB")
    >>> within.scale, within.size_multiple
    (2, 8)

    Args:
        network: SwinIR, HAT, DRCT or Restormer with any norm, in evaluation mode.
        memory: the bound for what a call allocates, the restored image included and weights and input excluded: bytes, an amount such as
            `2GB` or `500MB`, or `auto` for 80 % of the memory that is free when an image arrives. On a GPU, it is memory of the GPU.

    Returns:
        A module that is called like the network, [B, in_channels, H, W] to [B, in_channels, scale*H, scale*W], without gradients. If an
        image needs more memory than the bound, it raises a UserError that names the smallest possible bound.

    Raises:
        UserError: another network, or not an amount of memory.
    """
    from irformer.banded.bounded import BoundedNetwork

    return BoundedNetwork(network, memory)


def list_models() -> list[str]:
    """Return the model names that `create_model` accepts, those in configs/model."""
    from irformer.config.compose import options

    return options("model")


def list_norms() -> list[str]:
    """Return the norm names that `create_model` accepts, those in configs/norm."""
    from irformer.config.compose import options

    return options("norm")
