"""Statistics of the features of a network's layers on a batch: one function for training, inspection and the experiments."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.dynamics.selection import GROUPS, Layer, select_layers
from irformer.dynamics.statistics import STATISTICS, channel_energy
from irformer.models.interface import evaluation_mode


class Measured(NamedTuple):
    """The statistics of one layer.

    Args:
        layer: the layer.
        values: the value of each statistic in `irformer.dynamics.statistics`.
        energy: `channel_energy`, [C].
    """

    layer: Layer
    values: dict[str, float]
    energy: NDArray[np.float64]


def measure(network: nn.Module, batch: Tensor, layers: Sequence[Layer]) -> list[Measured]:
    """Measure layers of a network on a batch, in evaluation mode and without gradients. The network is left as it was.

    Args:
        network: see `irformer.models.interface.Network`; not a compiled one, whose modules hooks may not see.
        batch: [B, C, H, W] in [0, 1], on the network's device.
        layers: layers of this network, from `irformer.dynamics.selection.select_layers`.

    Returns:
        The layers that ran, in the given order. A module that runs more than once is measured at its last call.
    """
    recorded: dict[str, Tensor] = {}

    def record(layer: Layer, output: object) -> None:
        features = layer.features(output)
        scalars = torch.stack([function(features) for function in STATISTICS.values()])
        recorded[layer.name] = torch.cat([scalars, channel_energy(features)])

    hooks = [layer.module.register_forward_hook(lambda _m, _i, out, layer=layer: record(layer, out)) for layer in layers]
    try:
        with evaluation_mode(network), torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not recorded:
        return []
    sizes = [len(numbers) for numbers in recorded.values()]
    parts = torch.cat(list(recorded.values())).double().cpu().split(sizes)  # one read for all
    numbers = dict(zip(recorded, (part.numpy() for part in parts), strict=True))
    return [
        Measured(layer, dict(zip(STATISTICS, numbers[layer.name].tolist(), strict=False)), numbers[layer.name][len(STATISTICS) :])
        for layer in layers
        if layer.name in numbers
    ]


def probe(network: nn.Module, batch: Tensor, words: Sequence[str] = (GROUPS,)) -> dict[str, dict[str, float]]:
    """Compute statistics of the output of a network's layers.

    Args:
        network: see `irformer.models.interface.Network`; one without groups has no statistics of groups.
        batch: [B, C, H, W] in [0, 1].
        words: kinds of layers or patterns of module names, see `irformer.dynamics.selection.select_layers`.

    Returns:
        The value of each statistic for each layer, in the order of depth.
    """
    return {measured.layer.name: measured.values for measured in measure(network, batch, select_layers(network, words))}
