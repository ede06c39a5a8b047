"""Learning rate schedules at exact steps."""

import math

import pytest

from irformer.config.compose import compose, instantiate
from irformer.errors import UserError
from irformer.training.schedules import Cosine, MultiStep


def test_multistep_halves_at_each_milestone():
    schedule = MultiStep([250_000, 400_000, 450_000, 475_000])
    steps = [0, 249_999, 250_000, 399_999, 400_000, 450_000, 474_999, 475_000, 500_000]
    assert [schedule(step) for step in steps] == [1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.0625]


@pytest.mark.parametrize("schedule", [MultiStep([100], warmup=4), Cosine(10**9, lr=1.0, warmup=4)])
def test_warm_up_grows_linearly_to_the_full_rate(schedule):
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_restormers_schedule():
    """3e-4 for 92,000 steps, then half a cosine to 1e-6 at step 300,000, then constant."""
    cfg = compose("train", ["optim=adamw", "optim.lr=3e-4", "optim/schedule=flat_cosine", "optim.schedule.steps=300000"])
    schedule = instantiate(cfg.optim.schedule)
    rates = {step: 3e-4 * schedule(step) for step in (0, 91_999, 92_000, 144_000, 196_000, 300_000, 400_000)}
    quarter = 1e-6 + (3e-4 - 1e-6) * (1 + math.sqrt(0.5)) / 2
    assert rates == pytest.approx({0: 3e-4, 91_999: 3e-4, 92_000: 3e-4, 144_000: quarter, 196_000: 1.505e-4, 300_000: 1e-6, 400_000: 1e-6})
    assert schedule(92_001) < 1


def test_the_cosine_spans_the_run():
    cfg = compose("train", ["optim/schedule=cosine", "trainer.max_steps=1000", "optim.lr=1e-3", "optim.schedule.end_lr=1e-5"])
    schedule = instantiate(cfg.optim.schedule)
    assert [1e-3 * schedule(step) for step in (0, 500, 1000)] == pytest.approx([1e-3, 0.505e-3, 1e-5])


def test_a_schedule_that_never_falls_is_refused():
    cfg = compose("train", ["optim/schedule=flat_cosine", "trainer.max_steps=92000"])
    with pytest.raises(UserError, match=r"optim\.schedule: flat=92000 leaves no steps for the decay before steps=92000"):
        instantiate(cfg.optim.schedule)
