"""Statistics at values that can be computed by hand, and for unit normal features as their docstrings state."""

import math

import pytest
import torch

from irformer.dynamics.statistics import (
    STATISTICS,
    channel_energy,
    channel_entropy,
    energy_entropy,
    kurtosis,
    max_abs,
    mean_square,
    softmax_entropy,
    top1_share,
    top5_share,
)

# The values for unit normal features of C channels that the docstrings state.
UNIT_NORMAL = {
    "mean_square": lambda C: 1,
    "kurtosis": lambda C: 3,
    "top1_share": lambda C: 1 / C,
    "top5_share": lambda C: 5 / C,
    "channel_entropy": lambda C: math.log(C) - 0.284,
    "softmax_entropy": lambda C: math.log(C) - 0.267,
    "energy_entropy": lambda C: math.log(C),
}


@pytest.mark.parametrize("channels", [96, 180])
@pytest.mark.parametrize("name", UNIT_NORMAL)
def test_unit_normal_features_have_the_stated_value(name, channels):
    features = torch.randn(2, 96, 96, channels, generator=torch.Generator().manual_seed(0))
    assert STATISTICS[name](features).item() == pytest.approx(UNIT_NORMAL[name](channels), rel=0.03, abs=0.003)


def test_the_entropies_of_180_unit_normal_channels_are_where_the_papers_plane_lies():
    features = torch.randn(1, 64, 64, 180, generator=torch.Generator().manual_seed(0))
    assert channel_entropy(features).item() == pytest.approx(4.91, abs=0.01)
    assert softmax_entropy(features).item() == pytest.approx(4.93, abs=0.01)


def test_the_largest_of_a_million_unit_normal_values():
    features = torch.randn(1, 100, 100, 100, generator=torch.Generator().manual_seed(0))
    assert max_abs(features).item() == pytest.approx(4.9, abs=0.4)


def test_every_channel_of_unit_normal_features_has_energy_1():
    energy = channel_energy(torch.randn(2, 100, 100, 5, generator=torch.Generator().manual_seed(0)))
    assert energy.tolist() == pytest.approx([1] * 5, rel=0.05)


def test_channels_that_are_all_alike():
    alike = torch.full((2, 3, 3, 180), -0.7)
    for entropy in (channel_entropy, softmax_entropy, energy_entropy):
        assert entropy(alike).item() == pytest.approx(math.log(180), rel=1e-6)
    assert top1_share(alike).item() == pytest.approx(1 / 180, rel=1e-5)
    assert top5_share(alike).item() == pytest.approx(5 / 180, rel=1e-5)


def test_one_channel_that_holds_all():
    one = torch.zeros(2, 3, 3, 180)
    one[..., 5] = 400.0
    for entropy in (channel_entropy, softmax_entropy, energy_entropy):
        assert entropy(one).item() == pytest.approx(0, abs=1e-6)
    assert top1_share(one).item() == top5_share(one).item() == 1
    assert channel_energy(one)[5].item() == 160000
    assert kurtosis(one).item() == pytest.approx(180, rel=0.02)


def test_the_energy_entropy_sees_channels_and_the_others_tokens():
    """Each token has another strong channel, but all channels have the same energy."""
    features = torch.eye(16).view(1, 4, 4, 16) * 100
    assert energy_entropy(features).item() == pytest.approx(math.log(16))
    assert [channel_entropy(features).item(), softmax_entropy(features).item()] == pytest.approx([0, 0])


def test_only_the_softmax_entropy_depends_on_the_magnitude():
    features = torch.randn(1, 8, 8, 32, generator=torch.Generator().manual_seed(0))
    for name in ("kurtosis", "top1_share", "top5_share", "channel_entropy", "energy_entropy"):
        assert STATISTICS[name](features * 1000).item() == pytest.approx(STATISTICS[name](features).item(), rel=1e-5)
    assert softmax_entropy(features * 1000).item() < 0.1 < softmax_entropy(features).item()


def test_features_that_are_all_zero():
    zero = torch.zeros(1, 2, 2, 8)
    values = {name: function(zero).item() for name, function in STATISTICS.items()}
    assert values.pop("softmax_entropy") == pytest.approx(math.log(8))
    assert set(values.values()) == {0.0}


def test_statistics_do_not_overflow_in_half_precision():
    features = torch.full((1, 2, 2, 4), 60000.0, dtype=torch.float16)
    features[..., 0] = 0
    value = features[0, 0, 0, 1].item()
    assert mean_square(features).item() == pytest.approx(0.75 * value**2)
    assert max_abs(-features).item() == pytest.approx(value)
    assert kurtosis(features).item() == pytest.approx(7 / 3, rel=1e-4)  # of a value that is 0 in a quarter of the cases
    assert all(math.isfinite(function(features.bfloat16() * 1e10).item()) for function in STATISTICS.values())


@pytest.mark.parametrize("name", STATISTICS)
def test_features_that_are_not_finite_have_no_finite_statistic(name):
    features = torch.ones(1, 2, 2, 8)
    features[0, 0, 0, 0] = math.nan
    assert math.isnan(STATISTICS[name](features).item())
