"""Restormer: equality with the official network, parameter counts, and what a network must allow whatever its norm."""

import ast
import copy

import pytest
import torch
from parity import assert_compiles_for_all_sizes
from safetensors import safe_open

from irformer.config.compose import build_network, compose
from irformer.models import Restormer
from irformer.models.blocks import DIV2K_MEAN, DIV2K_STD
from irformer.norms import ILN, BiasFreeLayerNorm, LayerNorm, NormScheme
from irformer.weights.formats.official_restormer import from_official, to_official

BIAS_FREE = NormScheme("ln_biasfree", BiasFreeLayerNorm)
WITH_BIAS = NormScheme("ln", LayerNorm)
OFFICIAL_ILN = NormScheme("iln", ILN, ends="affine", standardize_input=True)
TINY = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 2, 2, 4)}


def _golden(path) -> tuple[Restormer, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """A network with official weights, the official state dict, and an input with the official output."""
    with safe_open(path, "pt") as file:
        official = {name: ast.literal_eval(value) for name, value in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dict)
    state = {name.removeprefix("params."): value for name, value in tensors.items() if name.startswith("params.")}
    network = Restormer(
        {"BiasFree": BIAS_FREE, "WithBias": WITH_BIAS}[official["LayerNorm_type"]],
        in_channels=official["inp_channels"],
        dim=official["dim"],
        num_blocks=official["num_blocks"],
        num_refinement_blocks=official["num_refinement_blocks"],
        heads=official["heads"],
        ffn_expansion_factor=official["ffn_expansion_factor"],
        bias=official["bias"],
    ).eval()
    network.load_state_dict(from_official(state), strict=True)
    return network, state, tensors["__input__"], tensors["__output__"]


@pytest.mark.parametrize("name", ["restormer_biasfree", "restormer_withbias_gray"])
def test_equals_the_official_network(golden_root, name):
    network, _, x, expected = _golden(golden_root / f"{name}.safetensors")
    with torch.no_grad():
        found = network(x)
    # The input is added to the output: what the network itself gives is compared.
    assert (found - expected).abs().max() <= 1e-5 * (expected - x).abs().max()


@pytest.mark.parametrize("name", ["restormer_biasfree", "restormer_withbias_gray"])
def test_official_weights_come_back_under_their_names(golden_root, name):
    network, state, _, _ = _golden(golden_root / f"{name}.safetensors")
    exported = to_official(network.state_dict())
    assert exported.keys() == state.keys()
    assert all(exported[key].equal(value) for key, value in state.items())


@pytest.mark.parametrize(
    ("norm", "channels", "count"), [(BIAS_FREE, 3, 26_111_668), (BIAS_FREE, 1, 26_109_076), (WITH_BIAS, 3, 26_126_644)]
)
def test_parameter_counts_are_the_official_ones(norm, channels, count):
    with torch.device("meta"):
        network = Restormer(norm, in_channels=channels)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("name", "millions"), [("restormer", 26.1), ("restormer_tiny", 0.5)])
def test_configs_have_the_size_that_they_name(name, millions):
    config = compose("train", [f"model={name}", "norm=ln_biasfree", "task.scale=1"])
    with torch.device("meta"):
        network = build_network(config.model)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


def test_biases_of_convolutions_stand_where_the_official_code_has_them():
    without = Restormer(BIAS_FREE, **TINY)
    assert not [name for name, _ in without.named_parameters() if name.endswith("bias")]
    biased = {name for name, module in Restormer(BIAS_FREE, bias=True, **TINY).named_modules() if getattr(module, "bias", None) is not None}
    convolutions = {name for name, module in without.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert convolutions - biased == {
        "patch_embed.proj",
        *(f"{name}.body.0" for name in ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")),
    }


def test_an_odd_size_is_padded_by_reflection_and_cut_again():
    torch.manual_seed(0)
    network = Restormer(BIAS_FREE, **TINY).eval()
    x = torch.rand(2, 3, 19, 29)
    with torch.no_grad():
        found = network(x)
        expected = network(torch.nn.functional.pad(x, (0, 3, 0, 5), mode="reflect"))[:, :, :19, :29]
    assert found.shape == x.shape
    torch.testing.assert_close(found, expected)


def test_standardised_input_is_undone_at_the_output():
    """With standardize_input the network reads (x - mean) / std; without it the pixels as they are, as the official one."""
    scheme = NormScheme("ln_biasfree", BiasFreeLayerNorm, standardize_input=True)
    torch.manual_seed(0)
    plain, standardised = (Restormer(norm, **TINY).eval() for norm in (BIAS_FREE, scheme))
    standardised.load_state_dict(plain.state_dict())
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (DIV2K_MEAN, DIV2K_STD))
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(standardised(x), plain((x - mean) / std) * std + mean)


def test_groups_are_the_levels_in_the_order_of_depth():
    network = Restormer(BIAS_FREE, **TINY)
    outputs: dict[str, tuple[int, ...]] = {}
    for name, group in network.groups.items():
        group.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: tuple(output.shape)}))
    network(torch.rand(1, 3, 32, 48))
    assert network.channels_first
    assert list(outputs) == list(network.groups), "the order of depth is the order of the forward pass"
    assert list(outputs.items()) == [
        ("encoder_level1", (1, 8, 32, 48)),
        ("encoder_level2", (1, 16, 16, 24)),
        ("encoder_level3", (1, 32, 8, 12)),
        ("latent", (1, 64, 4, 6)),
        ("decoder_level3", (1, 32, 8, 12)),
        ("decoder_level2", (1, 16, 16, 24)),
        ("decoder_level1", (1, 16, 32, 48)),
        ("refinement", (1, 16, 32, 48)),
    ]


@pytest.mark.parametrize("norm", [BIAS_FREE, OFFICIAL_ILN], ids=["ln_biasfree", "iln"])
def test_a_training_step_leaves_a_network_that_can_be_copied(norm):
    network = Restormer(norm, **TINY)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network(torch.rand(2, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    twin = copy.deepcopy(network).eval()
    x = torch.rand(1, 3, 11, 13)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), network.eval()(x), rtol=0, atol=0)


@pytest.mark.slow
def test_compiles_without_graph_breaks_and_once_more_for_all_other_sizes():
    assert_compiles_for_all_sizes(Restormer(OFFICIAL_ILN, **TINY), [(48, 48), (56, 64), (51, 70), (65, 47), (63, 72)])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_for_super_resolution_the_input_is_enlarged_in_front(scale):
    """The weights are those of the network that keeps its input's size, and so is its output for the enlarged input."""
    plain, network = Restormer(BIAS_FREE, **TINY).eval(), Restormer(BIAS_FREE, scale=scale, **TINY).eval()
    network.load_state_dict(plain.state_dict(), strict=True)
    x = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        expected = plain(torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic"))
        torch.testing.assert_close(network(x), expected)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="scale=0: expected 1 or more"):
        Restormer(BIAS_FREE, scale=0, **TINY)
    with pytest.raises(ValueError, match="num_blocks has 3 levels and heads 4"):
        Restormer(BIAS_FREE, **{**TINY, "num_blocks": (1, 1, 1)})
