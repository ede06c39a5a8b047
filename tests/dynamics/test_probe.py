"""Statistics at values that can be computed by hand, and a probe that leaves the network as it was."""

import math

import pytest
import torch
from torch import nn

from irformer.dynamics.features import probe
from irformer.dynamics.statistics import channel_entropy, max_abs, mean_square
from irformer.models import SwinIR
from irformer.norms import ILN, NormScheme


def test_entropy_is_ln_c_when_all_channels_are_alike_and_0_when_one_holds_all():
    alike = torch.full((2, 3, 3, 180), -0.7)
    assert channel_entropy(alike).item() == pytest.approx(math.log(180), rel=1e-6)
    one = torch.zeros(2, 3, 3, 180)
    one[..., 5] = 4.0
    assert channel_entropy(one).item() == 0
    assert channel_entropy(torch.zeros(1, 2, 2, 8)).item() == 0


def test_entropy_of_gaussian_features_is_where_the_papers_plane_lies():
    features = torch.randn(1, 64, 64, 180, generator=torch.Generator().manual_seed(0))
    assert channel_entropy(features).item() == pytest.approx(4.91, abs=0.01)


def test_magnitudes_do_not_overflow_in_half_precision():
    features = torch.full((1, 2, 2, 4), 60000.0, dtype=torch.float16)
    features[..., 0] = 0
    assert mean_square(features).item() == pytest.approx(0.75 * features[0, 0, 0, 1].item() ** 2)
    assert max_abs(-features).item() == pytest.approx(60000, rel=1e-3)


def test_the_probe_sees_each_group_in_evaluation_mode_and_leaves_no_trace():
    torch.manual_seed(0)
    network = SwinIR(
        NormScheme("iln", ILN), embed_dim=8, depths=(1, 1), num_heads=(2, 2), upsampler="pixelshuffledirect", drop_path_rate=0.9
    )
    network.train()
    network.layers[0].eval()
    batch = torch.rand(2, 3, 16, 16)
    outputs: list[torch.Tensor] = []
    hook = network.layers[1].register_forward_hook(lambda _m, _i, out: outputs.append(out))
    first, second = probe(network, batch), probe(network, batch)
    hook.remove()
    assert first == second  # nothing random: drop path is off
    assert list(first) == ["layers.0", "layers.1"]
    assert first["layers.1"]["mean_square"] == pytest.approx(outputs[0].square().mean().item())
    assert (network.training, network.layers[0].training, network.layers[1].training) == (True, False, True)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(p.grad is None for p in network.parameters())


def test_the_probe_knows_both_layouts():
    class ChannelsFirst(nn.Module):
        channels_first = True

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        @property
        def groups(self):
            return {"conv": self.conv}

        def forward(self, x):
            return self.conv(x)

    network = ChannelsFirst()
    nn.init.zeros_(network.conv.weight)
    nn.init.ones_(network.conv.bias)
    assert probe(network, torch.rand(1, 3, 4, 6))["conv"]["channel_entropy"] == pytest.approx(math.log(5))
