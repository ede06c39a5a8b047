"""Fake quantization: worked examples, what is quantized, and from which ranges."""

import pytest
import torch
from precision.networks import CALIBRATION, network, psnr, restored
from torch import nn

from irformer.errors import UserError
from irformer.precision import Calibration, in_precision
from irformer.precision.quantization import quantize, quantize_weight, step_size


def test_int8_by_hand():
    """Row 1: the step is 1.27 / 127 = 0.01. Row 2: 2.54 / 127 = 0.02, and 0.03 and 0.05 are ties, rounded to 2 and 2 steps."""
    weight = torch.tensor([[1.27, -0.004, 0.006, 0.5049], [0.0, 0.033, -2.54, 0.0499]], dtype=torch.float64)
    expected = torch.tensor([[1.27, 0.0, 0.01, 0.5], [0.0, 0.04, -2.54, 0.04]], dtype=torch.float64)
    torch.testing.assert_close(quantize_weight(weight, 8), expected, rtol=0, atol=1e-12)


def test_int4_by_hand():
    """The step is 7 / 7 = 1: 15 values from -7 to 7, ties to even."""
    x = torch.tensor([7.0, -6.4, 2.5, 3.5, -0.5, 0.51, 100.0, -100.0])
    assert quantize(x, torch.tensor(1.0), 4).tolist() == [7, -6, 2, 4, 0, 1, 7, -7]


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_quantized_stays(bits):
    x = torch.randn(1000)
    step = step_size(x.abs().amax(), bits)
    once = quantize(x, step, bits)
    assert torch.equal(quantize(once, step, bits), once)
    assert len(once.unique()) <= 2**bits - 1
    assert (x - once).abs().max() <= step / 2 * (1 + 1e-5)
    weight = quantize_weight(torch.randn(5, 3, 3, 3), bits)
    torch.testing.assert_close(quantize_weight(weight, bits), weight, rtol=1e-6, atol=0)


def test_zeros_stay_zeros():
    assert torch.equal(quantize_weight(torch.zeros(2, 3), 8), torch.zeros(2, 3))


class Layers(nn.Module):
    """A convolution and a linear layer whose result can be computed by hand, and a layer that small images do not reach."""

    scale = 1
    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.linear = nn.Linear(2, 1)
        self.rare = nn.Linear(1, 1)

    def forward(self, x):
        y = self.linear(self.conv(x).movedim(1, -1)).movedim(-1, 1)
        return self.rare(y) if x.shape[-1] > 1000 else y


def test_a_network_by_hand():
    net = Layers()
    net.conv.weight.data, net.conv.bias.data = torch.tensor([7.0, 14.0]).view(2, 1, 1, 1), torch.tensor([0.25, -0.125])
    net.linear.weight.data, net.linear.bias.data = torch.tensor([[1.0, 0.4]]), torch.tensor([0.5])
    images = (torch.full((1, 1, 2, 2), 0.7), torch.full((1, 1, 2, 2), 0.3))
    reduced = in_precision(net, "int4", Calibration(("seven tenths", "three tenths"), images))
    # Inputs of the convolution: largest 0.7, step 0.1. Its weights are 7 steps of 1 and of 2, and stay.
    # Inputs of the linear layer: largest 14 * 0.7 - 0.125 = 9.675, step 9.675 / 7. Its weights: step 1 / 7, so 0.4 becomes 3 / 7.
    step = 9.675 / 7
    for pixel, rounded in ((0.44, 0.4), (0.46, 0.5), (1.0, 0.7)):  # beyond the range of calibration: clamped
        hidden = [7 * rounded + 0.25, 14 * rounded - 0.125]
        on_grid = [min(7, round(value / step)) * step for value in hidden]
        expected = on_grid[0] + 3 / 7 * on_grid[1] + 0.5
        found = restored(reduced.network, torch.full((1, 1, 2, 2), pixel))
        torch.testing.assert_close(found, torch.full((1, 1, 2, 2), expected), rtol=1e-5, atol=0)
    record = reduced.record()
    assert record.calibration == ("seven tenths", "three tenths")
    assert record.scheme.startswith("fake quantization to 4 bits, symmetric: weights and inputs of linear and convolution layers")
    assert record.scheme.endswith("; not reached by the calibration images and left in float32: rare")


@pytest.mark.parametrize("name", ["swinir_tiny", "hat_tiny", "drct_tiny", "restormer_tiny"])
def test_fewer_bits_cost_more(name):
    net = network(name, "iln")
    expected = restored(net)
    eight, four = (psnr(restored(in_precision(net, p, CALIBRATION).network), expected) for p in ("int8", "int4"))
    assert 30 < eight < 90
    assert four < eight - 10
    assert torch.equal(restored(net), expected), "the network itself is not changed"


def test_a_dominating_channel_costs_what_the_others_need():
    """One range for a tensor: an input a hundred times as large as the others leaves them few steps."""
    net = Layers()
    net.conv.weight.data, net.conv.bias.data = torch.tensor([1.0, 100.0]).view(2, 1, 1, 1), torch.zeros(2)
    net.linear.weight.data, net.linear.bias.data = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
    images = Calibration(("ramp",), (torch.linspace(0, 1, 64).view(1, 1, 8, 8),))
    found = restored(in_precision(net, "int8", images).network, images.images[0])
    assert len(found.unique()) == 2, "of the 64 values of the small channel"


def test_ranges_need_images():
    for calibration in (None, Calibration((), ())):
        with pytest.raises(UserError, match="precision=int8 takes the ranges of activations from images, and found none"):
            in_precision(network(), "int8", calibration)
    bad = Calibration(("broken",), (torch.full((1, 3, 16, 16), float("nan")),))
    with pytest.raises(UserError, match=r"conv_first: its input is not finite for the calibration images \(broken\)"):
        in_precision(network(), "int8", bad)
