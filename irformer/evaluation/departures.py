"""Departures from restoring each image once, as a whole and in float32: what a result must say that it was measured with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from irformer.banded.bounded import BoundedNetwork
from irformer.errors import UserError
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.tiling import OVERLAP, TiledRestorer
from irformer.tasks.task import Padding

Tile = int | Literal["auto", "off"]


@dataclass(frozen=True)
class Departures:
    """How a network is applied to an image.

    Args:
        ensemble: average over the eight flips and rotations of the image, as in published "+" rows.
        tile: side of overlapping tiles in input pixels; `auto` uses tiles only for images that do not fit into memory, `off` never.
        overlap: overlap of neighboring tiles in input pixels.
        memory: bound for the memory of features, such as 2GB: the exact result, computed in bands; None for no bound.

    Raises:
        UserError: tiles and a memory bound together.
    """

    ensemble: bool = False
    tile: Tile = "auto"
    overlap: int = OVERLAP
    memory: str | int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and isinstance(self.tile, int):
            raise UserError(f"tile={self.tile} and memory={self.memory} both bound the memory; give only one of them (memory= is exact)")

    def as_dict(self) -> dict[str, Any]:
        """Return what changes results, as plain values; empty if each image is restored once and as a whole."""
        found: dict[str, Any] = {"ensemble": True} if self.ensemble else {}
        return found | ({"tile": self.tile, "overlap": self.overlap} if isinstance(self.tile, int) else {})

    def restorer(self, network: nn.Module, padding: Padding, device: torch.device | str) -> NetworkRestorer | TiledRestorer:
        """Return a restorer that applies a network in this way.

        Args:
            network: the network, in evaluation mode on the device.
            padding: padding before the network.
            device: device of the network.

        Raises:
            UserError: the tile does not suit the network, or the network cannot be computed within a memory bound.
        """
        if self.memory is not None:
            network = BoundedNetwork(network, self.memory)
        whole = NetworkRestorer(SelfEnsemble(network) if self.ensemble else network, padding, device)
        return whole if self.tile == "off" or self.memory is not None else TiledRestorer(whole, self.tile, self.overlap)


def in_words(departures: Mapping[str, Any]) -> list[str]:
    """Describe departures (`Departures.as_dict`) in short phrases, for titles and notes."""
    words = ["self-ensemble x8"] if departures.get("ensemble") else []
    return words + ([f"tile {departures['tile']}, overlap {departures['overlap']}"] if "tile" in departures else [])
