"""Statistics of the output of a network's groups."""

import torch
from torch import Tensor, nn

from irformer.dynamics.statistics import STATISTICS
from irformer.models.interface import evaluation_mode, groups_of, is_channels_first


def probe(network: nn.Module, batch: Tensor) -> dict[str, dict[str, float]]:
    """Compute statistics of the output of each of a network's groups.

    Args:
        network: see `irformer.models.interface.Network`; one without groups has no statistics.
        batch: [B, C, H, W] in [0, 1].

    Returns:
        The value of each statistic for each group, in the order of depth.
    """
    groups = groups_of(network)
    if not groups:
        return {}
    recorded: dict[str, dict[str, Tensor]] = {}

    def record(name: str, features: Tensor) -> None:
        if is_channels_first(network):
            features = features.movedim(1, -1)
        recorded[name] = {statistic: function(features) for statistic, function in STATISTICS.items()}

    hooks = [group.register_forward_hook(lambda _m, _i, out, name=name: record(name, out)) for name, group in groups.items()]
    try:
        with evaluation_mode(network), torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not recorded:
        return {}
    numbers = iter(torch.stack([value for values in recorded.values() for value in values.values()]).tolist())  # one read for all
    return {name: {statistic: next(numbers) for statistic in values} for name, values in recorded.items()}
