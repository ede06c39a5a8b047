"""Mixup of training patches, as Restormer's denoising recipe has it."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from irformer.errors import UserError

# Sets what mixup draws apart from all else that is drawn from (seed, step, rank).
_STREAM = 0x6D6978


class Mixup:
    """Blends each pair of patches with another pair of the batch, degraded and clean alike (arXiv 1710.09412; Restormer's code).

    One blending weight lambda ~ Beta(beta, beta) and one order of the batch are drawn for each step and process, from (seed, step, rank)
    alone, so that a resumed run blends the same.

    Args:
        beta: of the Beta distribution, 1.2 in Restormer.
        identity: leaves every other step as it is, by chance, as Restormer does.

    Raises:
        UserError: beta is not above 0.
    """

    def __init__(self, beta: Annotated[float, Gt(0)] = 1.2, identity: bool = True) -> None:
        if not beta > 0:
            raise UserError(f"mixup.beta={beta}: expected a number above 0; mixup=null trains without")
        self.beta = beta
        self.identity = identity

    def __call__(self, lq: Tensor, hq: Tensor, seed: int, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Blend a batch.

        Args:
            lq: degraded patches [B, C, h, w], float.
            hq: clean patches [B, C, H, W], float.
            seed: of the run.
            step: batches that this process took before.
            rank: of this process.
        """
        rng = np.random.default_rng((_STREAM, seed, step, rank))
        if self.identity and rng.random() < 0.5:
            return lq, hq
        weight = float(rng.beta(self.beta, self.beta))
        order = torch.from_numpy(rng.permutation(len(hq))).to(hq.device)
        return torch.lerp(lq[order], lq, weight), torch.lerp(hq[order], hq, weight)
