"""Learning rate schedules at the iterations that recipes name."""

import pytest

from irformer.training.schedules import MultiStep


def test_multistep_halves_at_each_milestone():
    factor = MultiStep([250_000, 400_000, 450_000, 475_000])
    assert [factor(step) for step in (0, 249_999, 250_000, 400_000, 475_000, 499_999)] == [1, 1, 0.5, 0.25, 0.0625, 0.0625]


def test_warmup_grows_linearly_and_ends_at_one():
    factor = MultiStep([100], warmup=4)
    assert [factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
