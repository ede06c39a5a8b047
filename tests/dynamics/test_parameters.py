"""Statistics of weights at known values, and the claim that a set of weights is scale-invariant."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from irformer import create_model
from irformer.dynamics.figures import position_bias_pictures
from irformer.dynamics.invariance import scale_invariant_weights
from irformer.dynamics.parameters import (
    copy_weights,
    gradient_norms,
    measure_weights,
    position_biases,
    rank_correlation,
    smoothness,
    update_ratios,
)
from irformer.dynamics.selection import select_layers
from irformer.models.hat import OverlappingCrossAttention, overlapping_positions
from irformer.models.windows import WindowAttention, relative_positions
from irformer.norms import LayerNorm, NormScheme


def test_smoothness_is_1_for_a_surface_0_for_noise_and_negative_for_a_checkerboard():
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:101, :101] / 100
    surface = np.stack([rows + columns, np.cos(rows * 3)])
    assert smoothness(surface) > 0.99
    assert smoothness(generator.normal(size=(4, 101, 101))) == pytest.approx(0, abs=0.02)
    assert smoothness((np.indices((1, 50, 50)).sum(0) % 2).astype(float)) == pytest.approx(-1, abs=1e-9)
    assert math.isnan(smoothness(np.zeros((2, 3, 3))))


def test_rank_correlation():
    x = np.array([0.1, 5.0, 2.0, 1e6])
    assert rank_correlation(x, np.log(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)  # ranks 1.5, 1.5, 3
    assert math.isnan(rank_correlation(np.ones(4), x))


def test_position_biases_are_those_that_attention_adds():
    """The bias of each pair of tokens stands at the offset between them."""
    window = WindowAttention(8, 3, 2)
    offsets = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")).flatten(1)
    difference = offsets[:, :, None] - offsets[:, None] + 2
    images = window.position_biases()
    assert images.shape == (2, 5, 5)
    assert torch.equal(images[:, difference[0], difference[1]], window.relative_position_bias_table[relative_positions(3)].permute(2, 0, 1))

    cross = OverlappingCrossAttention(8, 2, 4, 0.5, 2.0, True, NormScheme("ln", LayerNorm))
    inner, outer = (torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")).flatten(1) for n in (4, 6))
    difference = (
        outer[:, None] - inner[:, :, None] + 4 - 1
    )  # from the smallest offset of the official indices, 2 - 6, which is -3 + (4 - 6 + 1)
    images = cross.position_biases()
    assert images.shape == (2, 9, 9)
    expected = cross.relative_position_bias_table[overlapping_positions(4, 6)].permute(2, 0, 1)
    assert torch.equal(images[:, difference[0], difference[1]], expected)


def test_every_layer_and_head_has_a_picture(tmp_path):
    tables = position_biases(create_model("hat_tiny"))
    assert len(tables) == 12
    position_bias_pictures(tables, tmp_path / "biases.svg")
    drawn = (tmp_path / "biases.svg").read_text()
    assert drawn.count("<image ") == sum(len(table) for table in tables.values()) == 48
    assert f"smoothness {smoothness(tables['layers.0.residual_group.overlap_attn']):.2f}" in drawn


def test_swin_networks_of_others_have_position_biases_too():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.relative_position_bias_table = nn.Parameter(torch.arange(50.0).view(25, 2))

    network = nn.Sequential(nn.Identity(), Attention())
    (table,) = position_biases(network).values()
    assert (table.shape, table[1, 1, 0]) == ((2, 5, 5), 11)


def test_the_final_norm_is_compared_with_the_channels_that_it_reads():
    network = create_model("swinir_tiny", norm="ln")
    energy = np.linspace(1, 2, 48)
    with torch.no_grad():
        network.norm.weight.copy_(torch.linspace(2, 1, 48))
        network.norm.bias.copy_(-torch.linspace(1, 2, 48))
    (final,) = [measured for measured in measure_weights(network, energy) if measured.kind == "final_norm"]
    assert final.values == pytest.approx({"weight_correlation": -1, "bias_correlation": 1})
    assert not [measured for measured in measure_weights(network, None) if measured.kind == "final_norm"]


@pytest.mark.parametrize(
    ("model", "norm", "overrides", "sets"),
    [
        ("swinir_tiny", "ln", {}, 1),
        ("swinir_tiny", "rms", {"resi_connection": "3conv"}, 1),
        ("swinir_tiny", "iln", {"norm.ends": "ln"}, 1),
        ("swinir_tiny", "iln", {}, 0),  # affine ends see the scale
        ("swinir_tiny", "dyt", {"norm.ends": "ln"}, 0),
        ("swinir_tiny", "none", {}, 0),
        ("drct_tiny", "ln", {}, 1),
        ("drct_tiny", "ln_rescale", {}, 1),
        ("hat_tiny", "ln", {}, 0),
        ("restormer_tiny", "ln", {"num_blocks": [1, 1, 1, 1]}, 8),
    ],
)
def test_the_output_does_not_depend_on_the_scale_of_scale_invariant_weights(model, norm, overrides, sets):
    torch.manual_seed(0)
    network = create_model(model, norm=norm, overrides=overrides).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases too
    image = torch.rand(1, network.in_channels, 16, 16)
    invariant = scale_invariant_weights(network)
    assert len(invariant) == sets
    with torch.no_grad():
        expected = network(image)
        for weights in invariant.values():
            norm_before = torch.cat([weight.flatten() for weight in weights]).norm().item()
            assert norm_before > 0
            for weight in weights:
                weight.mul_(3)
            assert (network(image) - expected).abs().max() < 1e-3 * (expected - image.mean()).abs().max()
    values = [measured.values["weight_norm"] for measured in measure_weights(network, None) if measured.kind == "scale_invariant"]
    assert len(values) == sets


def test_scaling_other_weights_of_the_stream_changes_the_output():
    """The set is complete: without one of its parts, the output depends on the scale."""
    torch.manual_seed(0)
    network = create_model("swinir_tiny", norm="ln").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        image = torch.rand(1, 3, 16, 16)
        expected = network(image)
        for weight in scale_invariant_weights(network)["stream"][:-1]:
            weight.mul_(3)
        assert (network(image) - expected).abs().max() > 1e-3


def test_gradients_and_updates_by_layer():
    network = create_model("swinir_tiny")
    layers = select_layers(network, ["groups", "norms"])
    for parameter in network.layers[1].parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    norms = gradient_norms(layers)
    count = sum(parameter.numel() for parameter in network.layers[1].parameters())
    assert norms[1].item() == pytest.approx(2 * math.sqrt(count))
    assert math.isnan(norms[0].item())
    before = copy_weights(layers)
    with torch.no_grad():
        for parameter in network.layers[2].parameters():
            parameter.mul_(1.5)
    ratios = update_ratios(layers, before)
    assert ratios[:4].tolist() == pytest.approx([0, 0, 0.5, 0])
