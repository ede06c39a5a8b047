"""An optimizer and a schedule."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., arXiv 2302.06675): updates by the sign of the gradients' momentum.

    Args:
        params: parameters to optimize.
        lr: learning rate.
        betas: weights of the previous average, in the update and in the new average.
    """

    def __init__(self, params: Iterable[Any], lr: Annotated[float, Gt(0)] = 1e-4, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Perform one optimization step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            step_beta, average_beta = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                p.sub_(torch.lerp(p.grad, average, step_beta).sign(), alpha=group["lr"])
                average.lerp_(p.grad, 1 - average_beta)
        return loss


class Trapezoid:
    """A constant learning rate with linear warmup and linear decay to 0.

    Args:
        steps: total number of steps.
        ends: number of steps of the warmup and of the decay.
    """

    def __init__(self, steps: Annotated[int, Ge(1)], ends: Annotated[int, Ge(0)] = 1000) -> None:
        self.steps = steps
        self.ends = ends

    def __call__(self, step: int) -> float:
        """Return the factor at step 0, 1, ..."""
        return max(0.0, min(1.0, (step + 1) / (self.ends + 1), (self.steps - step) / (self.ends + 1)))
