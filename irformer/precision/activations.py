"""The largest activation of each layer and the count of non-finite outputs, over all calls of a network."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from irformer.banded.bounded import BoundedNetwork


def watchable_layers(network: nn.Module) -> list[str]:
    """Return the names of the modules with weights. Those of a network in bands are left out, because it refuses hooks."""
    bounded = tuple(f"{name}." if name else "" for name, module in network.named_modules() if isinstance(module, BoundedNetwork))
    return [
        name
        for name, module in network.named_modules()
        if name and next(module.parameters(), None) is not None and not name.startswith(bounded)
    ]


class ActivationWatch:
    """Watches the layers of a network and its output. It reads nothing from the device until it is asked.

    Args:
        network: the network; the hooks stay on it.
        layers: names of the modules to watch. Of a norm that returns (y, scale), y is watched.
    """

    def __init__(self, network: nn.Module, layers: Iterable[str]) -> None:
        self._largest: dict[str, Tensor] = {}
        self.reset()
        for name in layers:
            network.get_submodule(name).register_forward_hook(partial(self._see_layer, name))
        network.register_forward_hook(self._see_output)

    def reset(self) -> None:
        """Forget all calls."""
        self._largest.clear()
        self.images = 0
        self.values = 0
        self._finite: list[Tensor] = []

    @property
    def largest(self) -> dict[str, float]:
        """The largest absolute value of each layer's output in the order of computation; inf or nan if a value was not finite."""
        if not self._largest:
            return {}
        return dict(zip(self._largest, torch.stack(list(self._largest.values())).tolist(), strict=True))

    @property
    def non_finite(self) -> int:
        """The number of NaN and infinite values in the network's output."""
        return self.values - sum(int(count) for count in self._finite)

    def _see_layer(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        features = output[0] if isinstance(output, tuple) else output
        if not isinstance(features, Tensor) or not features.is_floating_point() or features.numel() == 0:
            return
        low, high = torch.aminmax(features.detach())  # NaN if there is one
        largest = torch.maximum(-low, high).float()
        self._largest[name] = torch.maximum(self._largest[name], largest) if name in self._largest else largest

    def _see_output(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.images += len(output)
        self.values += output.numel()
        self._finite.append(torch.isfinite(output).sum())
