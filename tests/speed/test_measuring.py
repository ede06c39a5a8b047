"""Medians, spreads, ratios, floors and verdicts, on numbers whose result is known; and how alternatives take turns."""

import gc

import pytest
import torch
from torch import nn

from irformer.models.flops import count_flops
from irformer.speed import measure
from irformer.speed.floors import Cost, Rates, forward_cost, largest_layer, step_cost
from irformer.speed.measure import Spread, Timing, interleaved, ratio, spread
from irformer.speed.operators import operator_shares
from irformer.speed.scaling_curves import log_slope
from irformer.speed.verdicts import Finding, Target, find_target, verdicts

CPU = torch.device("cpu")


class Clock:
    """A clock that only the measured calls move."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def call(self, name: str, *seconds: float):
        """A call that takes the given seconds in turn, and the last of them from then on."""
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_a_spread_is_the_median_between_its_quartiles():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.25, 1.75)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_a_ratio_is_that_of_the_medians_and_lies_in_its_interval():
    a, b = Timing("a", (2.0, 2.2, 10.0)), Timing("b", (1.0, 1.1, 1.2))
    found = ratio(a, b)
    assert found.median == pytest.approx(2.0)
    assert found.low <= found.median <= found.high
    assert ratio(a, b) == found, "the same numbers give the same interval"
    assert ratio(a, b, by_mean=True).median == pytest.approx(14.2 / 3.3)


def test_a_machine_that_slows_down_for_both_does_not_widen_the_interval():
    a, b = Timing("a", (2.0, 4.0, 40.0, 2.0)), Timing("b", (1.0, 2.0, 20.0, 1.0))
    assert ratio(a, b) == Spread(2.0, 2.0, 2.0)


def test_only_timings_of_the_same_rounds_have_a_ratio():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ratio(Timing("a", (1.0, 2.0)), Timing("b", (1.0,)))


def test_alternatives_take_turns_and_start_in_turn(monkeypatch):
    clock = Clock(monkeypatch)
    found = interleaved({name: clock.call(name, 1.0) for name in "abc"}, CPU, rounds=3, min_seconds=0.0)
    warm = [name for name in "abc" for _ in range(measure.WARMUP + 1)]
    assert "".join(clock.calls) == "".join(warm) + "abc" + "bca" + "cab"
    assert list(found) == ["a", "b", "c"]
    assert all(timing.seconds == (1.0, 1.0, 1.0) for timing in found.values())


def test_short_calls_are_repeated_and_counted_singly(monkeypatch):
    clock = Clock(monkeypatch)
    found = interleaved({"fast": clock.call("f", 0.25), "slow": clock.call("s", 3.0)}, CPU, rounds=2, min_seconds=1.0)
    measured = clock.calls[2 * (measure.WARMUP + 1) :]
    assert (measured.count("f"), measured.count("s")) == (8, 2), "in each of two rounds, four short calls and a long one"
    assert found["fast"].seconds == (0.25, 0.25)
    assert found["slow"].seconds == (3.0, 3.0)


def test_the_first_calls_do_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    found = interleaved({"compiled": clock.call("c", 100.0, 1.0)}, CPU, rounds=2, min_seconds=0.0)
    assert found["compiled"].seconds == (1.0, 1.0)


def test_garbage_is_collected_again_after_an_error():
    def fail() -> None:
        if not gc.isenabled():
            raise RuntimeError("while it is measured")

    with pytest.raises(RuntimeError):
        interleaved({"a": fail}, CPU, rounds=1, min_seconds=0.0)
    assert gc.isenabled()


class OneLayer(nn.Module):
    """A 3x3 convolution from 3 to 5 channels, in tiles of 4x4."""

    size_multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_the_cost_of_a_convolution():
    """8x11 is padded to 8x12: 96 pixels with 27 multiply-adds for each of 5 channels, 8 values in and out, and 135 weights."""
    network = OneLayer()
    assert count_flops(network, 8, 11) == 2 * 96 * 27 * 5
    cost = forward_cost(network, 8, 11, batch=2, element_bytes=4)
    assert cost == Cost(2 * 2 * 96 * 27 * 5, 4 * (2 * 96 * 8 + 135))
    assert step_cost(cost) == Cost(3 * cost.flops, 3 * cost.bytes)
    assert largest_layer(network, 8, 11) == 96 * 8


def test_the_floor_is_the_slower_of_operations_and_traffic():
    rates = Rates(flops=100.0, bytes=10.0)
    assert Cost(flops=500.0, bytes=10.0).floor(rates) == 5.0
    assert Cost(flops=500.0, bytes=80.0).floor(rates) == 8.0


def test_operators_are_named_with_the_larger_share_first():
    a = torch.rand(256, 256)
    shares = operator_shares(lambda: (a @ a @ a @ a).add(1.0), CPU, most=2)
    assert shares[0].operator == "mm"
    assert 0 < shares[1].percent <= shares[0].percent <= 100


def test_slopes_on_logarithmic_axes():
    assert log_slope([1, 4, 16], [3.0, 12.0, 48.0]) == pytest.approx(1.0)
    assert log_slope([1, 10, 100], [7.0, 7.0, 7.0]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("device", "work", "name", "bound", "at_least"),
    [
        ("cpu", "restore hat_mini x2, 64x64", "iln / ln", 1.0, False),
        ("cpu", "train swinir_light x2, batch 4 of 48x48", "iln compiled / ln compiled", 1.0, False),
        ("cpu", "restore swinir_light x2, 256x256", "official / ln", 3.5, True),
        ("cpu", "restore hat_mini x2, 64x64", "official / ln", 4.0, True),
        ("cpu", "restore restormer, 128x128", "official / ln", 1.5, True),
        ("cpu", "train swinir_light x2, batch 4 of 48x48", "official / ln", 1.4, True),
        ("cpu", "train hat_mini x2, batch 2 of 32x32", "official / ln", 1.5, True),
        ("cpu", "train hat_mini x2, batch 2 of 32x32", "official / best of irformer", 1.6, True),
        ("cpu", "memory swinir_light x2, 512x512", "ln / official", 0.5, False),
        ("cpu", "loop swinir_light x2, batch 4 of 48x48", "loop / bare step", 0.97, True),
        ("cuda", "restore hat_mini x2, 64x64", "iln bf16 / ln bf16", 1.02, False),
        ("cuda", "restore restormer, 128x128", "official / best of irformer", 2.5, True),
        ("cuda", "train hat_mini x2, batch 2 of 32x32", "official bf16 / ln bf16", 1.5, True),
        ("cuda", "train hat_mini x2, batch 2 of 32x32", "official / best of irformer", 3.0, True),
        ("cuda", "memory swinir_light x2, 512x512", "ln / official", 0.4, False),
        ("cuda", "loop swinir_light x2, batch 4 of 48x48, bf16", "loop / bare step", 0.97, True),
    ],
)
def test_every_target_is_found(device, work, name, bound, at_least):
    assert find_target(work, name, device) == Target(bound, at_least)


def test_other_sizes_have_no_target():
    assert find_target("restore swinir_light x2, 64x64", "official / ln", "cpu") is None
    assert find_target("memory swinir_light x2, 128x128", "ln / official", "cpu") is None


def test_verdicts_follow_from_the_median():
    reached = Finding("a / b", "work", Spread(1.0, 0.9, 1.1), Target(1.0, at_least=False))
    missed = Finding("", "start", Spread(3.5, 3.5, 3.5), Target(3.0, at_least=False), "s")
    assert verdicts([reached, missed, Finding("c / d", "work", Spread(2.0, 2.0, 2.0), None)]) == [
        "work: a / b 1.00 (0.90 to 1.10), target 1.00 or less: reached",
        "start: 3.50 s, target 3.00 s or less: NOT REACHED",
    ]
    assert (reached.reached, missed.reached) == (True, False)
