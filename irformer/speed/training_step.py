"""Training steps without a training loop: forward pass, loss, backward pass and optimizer, of irformer's and the official networks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from irformer.config.compose import compose
from irformer.speed.alternatives import DTYPES, Comparison, Options, RateCache, Setting, compare, compiled, forget_compiled
from irformer.speed.floors import forward_cost, step_cost
from irformer.speed.peers import OFFICIAL, networks_to_compare
from irformer.training.recipe import build_optimizer


@dataclass(frozen=True)
class Step:
    """A training step.

    Args:
        model: name of the model.
        scale: upscaling factor; None uses the default of the network's class.
        batch: number of patches.
        patch: height and width of a degraded patch in pixels.
    """

    model: str
    scale: int | None
    batch: int
    patch: int

    @property
    def title(self) -> str:
        """The work in words."""
        return f"train {self.model}{f' x{self.scale}' if self.scale else ''}, batch {self.batch} of {self.patch}x{self.patch}"


CASES = (Step("swinir_light", 2, 4, 48), Step("hat_mini", 2, 2, 32), Step("restormer", None, 1, 64))
QUICK = (Step("swinir_light", 2, 1, 32),)


def compare_steps(case: Step, rates: RateCache, options: Options) -> Comparison:
    """Measure how long a training step takes.

    Every network starts from the same weights and has its own optimizer: irformer's that of `optim: adam`, official ones
    torch.optim.Adam as PyTorch sets it up.

    Args:
        case: the step.
        rates: rates of the device.
        options: the alternatives, and how they are measured.

    Raises:
        UserError: the model or a norm is unknown.
    """
    if options.compile:
        forget_compiled()
    networks, note = networks_to_compare(case.model, case.scale, options.norms, options.official, case.patch)
    forward = {
        name: forward_cost(networks[options.norms[0]], case.patch, case.patch, case.batch, DTYPES[name].itemsize)
        for name in options.precisions
    }
    calls: dict[Setting, Callable[[], object]] = {}
    for setting in options.settings(OFFICIAL in networks):
        network = copy.deepcopy(networks[setting.network]).to(rates.device)
        calls[setting] = TrainingStep(network, build_step_optimizer(network, case.model, setting), setting, case, rates.device)
    cost = {name: step_cost(of) for name, of in forward.items()}
    return compare(case.title, calls, cost, rates, options, [note] if note else [])


def build_step_optimizer(network: nn.Module, model: str, setting: Setting) -> Optimizer:
    """Build irformer's default optimizer for its own networks, and PyTorch's Adam for official ones."""
    if setting.network == OFFICIAL:
        return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.9, 0.99))
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[setting.precision]
    return build_optimizer(compose("train", [f"model={model}"]), network, precision)(network.parameters())


class TrainingStep:
    """A training step, one for each call, always on the same batch.

    Args:
        network: the network, on the device.
        optimizer: its optimizer.
        setting: precision, and whether to compile.
        case: the step.
        device: the device.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, setting: Setting, case: Step, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        target = case.patch * (case.scale or 1)
        self._lq = torch.rand(case.batch, 3, case.patch, case.patch, generator=generator).to(device)
        self._hq = torch.rand(case.batch, 3, target, target, generator=generator).to(device)
        self._network: Callable[[Tensor], Tensor] = compiled(network.train()) if setting.compiled else network.train()
        self._optimizer = optimizer
        self._setting = setting

    def __call__(self) -> None:
        """Do one step."""
        self._optimizer.zero_grad()
        with self._setting.autocast(self._lq.device):
            restored = self._network(self._lq)
        F.l1_loss(restored.float(), self._hq).backward()
        self._optimizer.step()
