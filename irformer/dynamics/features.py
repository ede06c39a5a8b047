"""The probe: feature statistics of the output of a network's groups."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from irformer.dynamics.statistics import STATISTICS


def probe(network: nn.Module, batch: Tensor) -> dict[str, dict[str, float]]:
    """Compute statistics of the output of each of a network's groups for a batch.

    Args:
        network: a network with the attributes `groups` and `channels_first`.
        batch: [B, C, H, W] in [0, 1].

    Returns:
        The value of each statistic for each group, in order of depth.
    """
    recorded: dict[str, dict[str, Tensor]] = {}

    def record(name: str, features: Tensor) -> None:
        if network.channels_first:
            features = features.movedim(1, -1)
        recorded[name] = {statistic: function(features) for statistic, function in STATISTICS.items()}

    groups: dict[str, nn.Module] = network.groups  # type: ignore[assignment]
    hooks = [group.register_forward_hook(lambda _m, _i, out, name=name: record(name, out)) for name, group in groups.items()]
    try:
        with evaluation_mode(network), torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: {statistic: value.item() for statistic, value in values.items()} for name, values in recorded.items()}


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and restore the mode of each module on exit."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
