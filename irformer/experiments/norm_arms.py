"""The arms of figure 4 and table 1: one for each norm that the paper compares."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from irformer.config.compose import build_network, instantiate
from irformer.experiments.budgets import Budget
from irformer.experiments.lab_arms import OFFICIAL_ILN, OFFICIAL_LN, Arm
from irformer.experiments.planning import plan_runs
from irformer.models.interface import final_norm_of


@dataclass(frozen=True)
class ComparedNorm:
    """A norm of the comparison.

    Args:
        key: its name in configs/norm.
        title: its name in tables.
        diverges: whether the paper reports that its magnitudes diverge.
    """

    key: str
    title: str
    diverges: bool


NORMS = (
    ComparedNorm("ln", "LayerNorm", True),
    ComparedNorm("rms", "RMSNorm", True),
    ComparedNorm("layerscale", "LayerScale", True),
    ComparedNorm("batch", "BatchNorm (batch statistics)", False),
    ComparedNorm("instance", "InstanceNorm", False),
    ComparedNorm("rezero", "ReZero", False),
    ComparedNorm("none", "no norm", False),
    ComparedNorm("iln", "i-LN", False),
)


def norm_arms(budget: Budget) -> Iterator[Arm]:
    """Yield an arm for each norm, with its own ends and input."""
    official = {"ln": OFFICIAL_LN, "iln": OFFICIAL_ILN}
    for norm in NORMS:
        yield Arm(norm.key, norm.title, official.get(norm.key, (f"norm={norm.key}",)))


def ends_normalize(arm: Arm, budget: Budget) -> bool:
    """Return whether an arm's network has a final norm, and this norm removes the scale of its input; calls the norm to find out."""
    config = plan_runs([arm], budget, seeds=1)[0].config
    with torch.device("meta"):
        network = build_network(config.model)
    if final_norm_of(network) is None:
        return False
    end = instantiate(config.norm).end(16)
    features = torch.randn(1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.allclose(end(features)[0], end(2 * features)[0], rtol=1e-2, atol=1e-2)
