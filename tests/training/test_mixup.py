"""Mixup: what it blends, how often, and which inputs determine it."""

import numpy as np
import pytest
import torch

from irformer.errors import UserError
from irformer.training.mixup import Mixup


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    hq = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return hq[..., ::2, ::2] / 2, hq


def _weights(blended: torch.Tensor, batch: torch.Tensor) -> np.ndarray:
    """Return the weight of each sample in each blended one, by least squares: [B, B]."""
    return np.linalg.lstsq(batch.flatten(1).double().numpy().T, blended.flatten(1).double().numpy().T, rcond=None)[0].T


def test_each_pair_is_blended_with_one_other_and_degraded_as_clean(batch):
    lq, hq = batch
    others = 0
    for step in range(40):
        blended_lq, blended_hq = Mixup(1.2, identity=False)(lq, hq, 0, step, 0)
        torch.testing.assert_close(blended_lq, blended_hq[..., ::2, ::2] / 2)  # both images of a pair are blended alike
        weights = _weights(blended_hq, hq)
        assert np.allclose(weights.sum(1), 1, atol=1e-4)
        own = np.diag(weights)
        partners = np.where(weights - np.diag(own) > 1e-3)[1]
        assert len(set(partners)) == len(partners)  # a permutation of the batch: no partner occurs twice
        blends = own[own < 1 - 1e-3]
        others += len(blends)
        assert np.allclose(blends, blends[:1], atol=1e-3)  # one weight for the whole batch
    assert others > 80


def test_the_weight_is_drawn_from_the_beta_distribution():
    """Beta(1.2, 1.2) has mean 1/2 and variance 1 / (4 * 3.4)."""
    hq = torch.eye(2).reshape(2, 1, 1, 2)
    weights = []
    for step in range(1500):
        blended = Mixup(1.2, identity=False)(hq, hq, 0, step, 0)[1].reshape(2, 2)
        if not torch.equal(blended, torch.eye(2)):  # the other permutation of two
            weights.append(blended[0, 0].item())
    assert len(weights) == pytest.approx(750, abs=5 * 375**0.5)
    assert np.mean(weights) == pytest.approx(0.5, abs=5 * (1 / 13.6 / len(weights)) ** 0.5)
    assert np.var(weights) == pytest.approx(1 / 13.6, rel=0.15)


def test_half_of_the_steps_stay_as_they_are(batch):
    same = sum(Mixup(1.2, identity=True)(*batch, 0, step, 0)[1] is batch[1] for step in range(1000))
    assert same == pytest.approx(500, abs=5 * 250**0.5)


def test_seed_step_and_rank_decide_alone(batch):
    mixup = Mixup(1.2, identity=False)
    first = mixup(*batch, 3, 5, 1)[1]
    torch.manual_seed(1)
    assert torch.equal(mixup(*batch, 3, 5, 1)[1], first)
    for other in ((4, 5, 1), (3, 6, 1), (3, 5, 0)):
        assert not torch.equal(mixup(*batch, *other)[1], first)


def test_a_single_patch_stays_as_it_is(batch):
    lq, hq = (patches[:1] for patches in batch)
    blended_lq, blended_hq = Mixup(1.2, identity=False)(lq, hq, 0, 0, 0)
    torch.testing.assert_close(blended_lq, lq)
    torch.testing.assert_close(blended_hq, hq)


def test_a_beta_that_cannot_be_is_told():
    with pytest.raises(UserError, match=r"mixup\.beta=0: expected a number above 0; mixup=null trains without mixup"):
        Mixup(beta=0)
