"""A probe that leaves the network as it was."""

import pytest
import torch

from irformer.dynamics.features import probe
from irformer.models import SwinIR
from irformer.norms import ILN, NormScheme


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
