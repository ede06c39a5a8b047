"""Restoring images: irformer's networks and the official ones with the same weights, without padding or tiles around them."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from irformer.graphs.graph_files import write_onnx
from irformer.graphs.runtimes import GraphNetwork
from irformer.speed.alternatives import DTYPES, Comparison, Options, RateCache, Setting, compare, compiled, forget_compiled
from irformer.speed.floors import forward_cost
from irformer.speed.peers import OFFICIAL, networks_to_compare


@dataclass(frozen=True)
class Restoring:
    """An image to restore.

    Args:
        model: name of the model.
        scale: upscaling factor; None uses the default of the network's class.
        size: height and width of the input in pixels.
    """

    model: str
    scale: int | None
    size: int

    @property
    def title(self) -> str:
        """The work in words."""
        return f"restore {self.model}{f' x{self.scale}' if self.scale else ''}, {self.size}x{self.size}"


CASES = (
    Restoring("swinir_light", 2, 256),
    Restoring("swinir_light", 2, 128),
    Restoring("hat_mini", 2, 64),
    Restoring("restormer", None, 128),
)
QUICK = (Restoring("swinir_light", 2, 64),)


def compare_restoring(case: Restoring, rates: RateCache, options: Options) -> Comparison:
    """Measure how long networks take to restore an image.

    Args:
        case: the image and the model.
        rates: rates of the device.
        options: the alternatives, and how they are measured.

    Raises:
        UserError: the model or a norm is unknown.
    """
    if options.compile:
        forget_compiled()
    networks, note = networks_to_compare(case.model, case.scale, options.norms, options.official)
    cost = {
        name: forward_cost(networks[options.norms[0]], case.size, case.size, element_bytes=DTYPES[name].itemsize)
        for name in options.precisions
    }
    device = rates.device
    image = torch.rand(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)).to(device)
    networks = {name: network.to(device) for name, network in networks.items()}
    calls: dict[Setting, Callable[[], object]] = {}
    graphs = _graphs(networks, options)
    for setting in options.settings(OFFICIAL in networks):
        network = networks[setting.network] if setting.backend == "torch" else graphs[setting.network, setting.backend]
        calls[setting] = partial(_restore, compiled(network) if setting.compiled else network, image, setting)
    return compare(case.title, calls, cost, rates, options, [note] if note else [])


def _graphs(networks: Mapping[str, nn.Module], options: Options) -> dict[tuple[str, str], nn.Module]:
    """Export networks and load them in each runtime, by norm and runtime."""
    found: dict[tuple[str, str], nn.Module] = {}
    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        for norm in options.norms if options.backends else ():
            path = Path(folder) / f"{norm}.onnx"
            write_onnx(networks[norm], path, {})
            found |= {(norm, backend): GraphNetwork(path, backend) for backend in options.backends}
    return found


@torch.inference_mode()
def _restore(network: Callable[[Tensor], Tensor], image: Tensor, setting: Setting) -> Tensor:
    with setting.autocast(image.device):
        return network(image)
