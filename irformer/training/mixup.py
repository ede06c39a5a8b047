"""Mixup of training patches, as in Restormer's denoising recipe."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from irformer.errors import UserError

# Separates mixup's random numbers from all others seeded by (seed, step, rank).
_STREAM = 0x6D6978


class Mixup:
    """Blends each pair of degraded and clean patches with another pair of the batch (arXiv 1710.09412; Restormer's code).

    One weight lambda ~ Beta(beta, beta) and one permutation of the batch are drawn for each step and process. They depend only on (seed,
    step, rank), so a resumed run draws the same ones.

    Args:
        beta: parameter of the Beta distribution, 1.2 in Restormer.
        identity: skip mixup in a random half of the steps, as Restormer does.

    Raises:
        UserError: beta is not positive.
    """

    def __init__(self, beta: Annotated[float, Gt(0)] = 1.2, identity: bool = True) -> None:
        if not beta > 0:
            raise UserError(f"mixup.beta={beta}: expected a number above 0; mixup=null trains without mixup")
        self.beta = beta
        self.identity = identity

    def __call__(self, lq: Tensor, hq: Tensor, seed: int, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Blend a batch.

        Args:
            lq: degraded patches [B, C, h, w], float.
            hq: clean patches [B, C, H, W], float.
            seed: seed of the run.
            step: number of batches that this process has already trained on.
            rank: rank of this process.
        """
        rng = np.random.default_rng((_STREAM, seed, step, rank))
        if self.identity and rng.random() < 0.5:
            return lq, hq
        weight = float(rng.beta(self.beta, self.beta))
        order = torch.from_numpy(rng.permutation(len(hq)))
        if hq.is_cuda:  # a copy from pageable memory would wait for the device
            order = order.pin_memory().to(hq.device, non_blocking=True)
        return torch.lerp(lq[order], lq, weight), torch.lerp(hq[order], hq, weight)
