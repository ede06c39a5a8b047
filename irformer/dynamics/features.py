"""Statistics of the output of a network's groups."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from irformer.dynamics.statistics import STATISTICS


def probe(network: nn.Module, batch: Tensor) -> dict[str, dict[str, float]]:
    """Statistics of the output of each of a network's groups for a batch.

    Args:
        network: has `groups` and `channels_first`.
        batch: [B, C, H, W] in [0, 1].

    Returns:
        For each group, in the order of depth, the value of each statistic.
    """
    taken: dict[str, dict[str, Tensor]] = {}

    def take(name: str, features: Tensor) -> None:
        if network.channels_first:
            features = features.movedim(1, -1)
        taken[name] = {statistic: function(features) for statistic, function in STATISTICS.items()}

    groups: dict[str, nn.Module] = network.groups  # type: ignore[assignment]
    hooks = [group.register_forward_hook(lambda _m, _i, out, name=name: take(name, out)) for name, group in groups.items()]
    try:
        with evaluation_mode(network), torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: {statistic: value.item() for statistic, value in values.items()} for name, values in taken.items()}


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
