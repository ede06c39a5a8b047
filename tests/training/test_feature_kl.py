"""The KL regularization of features: its values are those of the formula, and it reaches the network in training only."""

import math

import pytest
import torch
from tiny import build, logged, train
from torch import nn

from irformer.errors import UserError
from irformer.training.feature_kl import FeatureKL, normal_divergence


def test_unit_normal_features_have_no_divergence():
    features = torch.randn(2, 64, 64, 16, generator=torch.Generator().manual_seed(0))
    assert normal_divergence(features).abs().max() < 1e-3


def test_the_divergence_is_that_of_normal_distributions():
    features = torch.tensor([[1.0, 5.0, 1.0, 5.0], [0.5, -0.5, 0.5, -0.5]])  # mean 3 and 0, variance 4 and 0.25
    expected = [
        torch.distributions.kl_divergence(torch.distributions.Normal(m, s), torch.distributions.Normal(0.0, 1.0))
        for m, s in [(3.0, 2.0), (0.0, 0.5)]
    ]
    assert normal_divergence(features).tolist() == pytest.approx([value.item() for value in expected])


def test_it_pulls_a_diverging_stream_back():
    features = (1000 * torch.randn(1, 8, 8, 4)).requires_grad_()
    normal_divergence(features).sum().backward()
    assert features.grad is not None
    assert (features.grad * features).sum() > 0  # gradient descent shrinks it
    assert math.isfinite(normal_divergence(torch.zeros(1, 8)).item())


def test_a_run_logs_it_and_validation_does_not_feed_it(tmp_path):
    run = build(tmp_path, "loss=l1_feature_kl", "trainer.max_steps=3", "trainer.val_check_interval=1")
    train(run)
    divergences = logged(run, "train/loss_feature_kl")
    total, l1 = logged(run, "train/loss"), logged(run, "train/loss_l1")
    assert len(divergences) == 3
    assert total == pytest.approx([a + 1e-3 * b for a, b in zip(l1, divergences, strict=True)], rel=1e-4)


def test_a_network_without_groups_is_refused():
    with pytest.raises(UserError, match="FeatureKL needs the groups of the network, and Identity declares none; use loss=l1"):
        FeatureKL().watch(nn.Identity())


def test_features_that_were_not_seen_are_reported():
    with pytest.raises(UserError, match=r"saw no features in this step; expected trainer\.compile=false"):
        FeatureKL()(torch.zeros(1), torch.zeros(1))
