"""HAT: equality with the official networks, with LayerNorm and with i-LN, parameter counts, and what its own parts promise."""

import ast
import functools

import pytest
import torch
from parity import (
    LN,
    OFFICIAL_ILN,
    assert_can_be_copied_after_a_training_step,
    assert_compiles_for_all_sizes,
    assert_gradients_are_right,
    count_parameters,
    relative_difference,
    take_official_weights,
    without_derived_buffers,
)
from safetensors import safe_open
from spandrel.architectures.HAT import HAT as OfficialHAT  # noqa: N811 - a class named by an acronym

from irformer.models import HAT
from irformer.models.hat import GlobalAverage, OverlappingCrossAttention, overlapping_positions, overlapping_windows
from irformer.norms import ILN, NormScheme

SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": (3, 3), "window_size": 8, "compress_ratio": 3, "squeeze_factor": 6}
TINY = {**SMALL, "embed_dim": 12, "depths": (2,), "num_heads": (2,), "window_size": 4, "upsampler": "pixelshuffledirect"}

# The official configurations by the names of the paper; HAT_MINI is HAT_1 of the i-LN paper.
GROUPS_6 = {"depths": (6,) * 6, "num_heads": (6,) * 6}
HAT_M = {"embed_dim": 180, **GROUPS_6, "compress_ratio": 3, "squeeze_factor": 30}
HAT_S = {"embed_dim": 144, **GROUPS_6, "compress_ratio": 24, "squeeze_factor": 24}
HAT_L = {**HAT_M, "depths": (6,) * 12, "num_heads": (6,) * 12}
HAT_MINI = {"embed_dim": 96, **GROUPS_6, "compress_ratio": 24, "squeeze_factor": 24}


def _official(scale: int, **arguments) -> torch.nn.Module:
    names = {"pixel_range": "img_range", "in_channels": "in_chans"}
    keywords = {"upscale": scale, "window_size": 16, "mlp_ratio": 2.0, "img_size": 64}
    keywords |= {names.get(key, key): value for key, value in arguments.items()}
    return OfficialHAT(**keywords).eval()


@pytest.mark.parametrize(
    ("arguments", "scale", "size"),
    [
        (SMALL, 2, (16, 24)),
        (SMALL, 3, (21, 35)),
        (SMALL, 4, (17, 9)),
        ({**SMALL, "overlap_ratio": 0.25, "conv_scale": 0.5, "mlp_ratio": 1.5}, 2, (19, 30)),
        ({**SMALL, "in_channels": 1, "qkv_bias": False, "pixel_range": 255.0, "resi_connection": "identity"}, 2, (9, 15)),
        ({**HAT_M, "depths": (2, 1), "num_heads": (6, 6)}, 4, (17, 30)),
        ({**HAT_S, "depths": (2, 1), "num_heads": (6, 6)}, 3, (33, 20)),
    ],
)
def test_equals_the_official_network(arguments, scale, size):
    torch.manual_seed(0)
    reference = _official(scale, **arguments)
    network = HAT(LN, scale=scale, **arguments).eval()
    take_official_weights(network, reference)
    x = torch.rand(2, arguments.get("in_channels", 3), *size)
    with torch.no_grad():
        assert relative_difference(network(x), reference(x)) <= 1e-5


@pytest.mark.parametrize(("norm", "file"), [(OFFICIAL_ILN, "hat_iln"), (LN, "hat_ln_stdnorm_off")], ids=["iln", "ln"])
def test_equals_the_output_of_the_official_iln_code(norm, file, golden_root):
    with safe_open(golden_root / f"{file}.safetensors", "pt") as golden:
        tensors = {name: golden.get_tensor(name) for name in golden.keys()}  # noqa: SIM118 - it is no mapping
        arguments = {name: ast.literal_eval(value) for name, value in golden.metadata().items()}
    # What they call otherwise, and what follows from the norm (stdnorm, eps) or is no argument here (img_size).
    names = {"upscale": "scale", "in_chans": "in_channels", "img_range": "pixel_range", "stdnorm": None, "eps": None, "img_size": None}
    arguments = {names.get(name, name): value for name, value in arguments.items() if names.get(name, name)}
    network = HAT(norm, **arguments).eval()
    weights = {name.removeprefix("params_ema."): value for name, value in tensors.items() if name.startswith("params_ema.")}
    weights = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): value for name, value in weights.items()}
    network.load_state_dict(without_derived_buffers(weights), strict=True)
    with torch.no_grad():
        assert relative_difference(network(tensors["__input__"]), tensors["__output__"]) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "scale", "count"),
    [
        (HAT_M, 2, 20_624_795),
        (HAT_M, 3, 20_809_435),
        (HAT_M, 4, 20_772_507),
        (HAT_S, 4, 9_621_183),
        (HAT_L, 4, 40_846_575),
        (HAT_MINI, 2, 4_476_095),
        (HAT_MINI, 4, 4_623_807),
    ],
)
def test_parameter_counts_are_the_official_ones(arguments, scale, count):
    """The paper gives 20.8M for HAT, 9.6M for HAT-S and 40.8M for HAT-L at x4."""
    with torch.device("meta"):
        assert count_parameters(HAT(LN, scale=scale, **arguments)) == count
    assert count_parameters(_official(scale, **arguments)) == count


def test_iln_adds_no_parameters():
    assert count_parameters(HAT(LN, **TINY)) == count_parameters(HAT(OFFICIAL_ILN, **TINY))


def test_only_parameters_are_saved():
    network = HAT(OFFICIAL_ILN, **TINY)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_gradients_flow_through_the_statistics():
    torch.manual_seed(0)
    assert_gradients_are_right(HAT(OFFICIAL_ILN, **{**TINY, "conv_scale": 0.5}))


@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_a_training_step_leaves_a_network_that_can_be_copied(norm):
    assert_can_be_copied_after_a_training_step(HAT(norm, **TINY))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_compiles_without_graph_breaks_and_once_more_for_all_other_sizes(norm):
    assert_compiles_for_all_sizes(HAT(norm, **TINY), [(24, 24), (28, 32), (25, 34), (33, 23), (48, 28)])


def test_channel_attention_is_rescaled_with_the_branch():
    """sigma * (attention + conv_scale * CAB): with eps 0 a block is equivariant to the scale of its features, CAB included."""
    torch.manual_seed(0)
    norm = NormScheme("iln", functools.partial(ILN, eps=0.0))
    block = HAT(norm, **{**TINY, "conv_scale": 0.5}).double().eval().layers[0].residual_group.blocks[0]
    x = torch.randn(1, 8, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(block(50 * x), 50 * block(x), rtol=1e-10, atol=1e-9)


def test_overlapping_windows_are_cut_around_each_window_with_zeros_outside():
    image = torch.arange(1.0, 65.0).view(1, 8, 8, 1)
    windows = overlapping_windows(image, 4, 6).view(2, 2, 6, 6)
    framed = torch.nn.functional.pad(image[0, :, :, 0], (1, 1, 1, 1))
    for i in range(2):
        for j in range(2):
            assert windows[i, j].equal(framed[4 * i : 4 * i + 6, 4 * j : 4 * j + 6])


@pytest.mark.parametrize(("window", "overlap_ratio"), [(16, 0.5), (8, 0.25), (4, 1.0), (7, 0.3)])
def test_overlapping_positions_pick_the_official_rows(window, overlap_ratio):
    """The official index counts negative rows from the end of the table."""
    size = window + int(overlap_ratio * window)
    keywords = {"embed_dim": 4, "depths": (), "num_heads": (), "compress_ratio": 1, "squeeze_factor": 1}
    official = _official(2, **keywords, window_size=window, overlap_ratio=overlap_ratio).relative_position_index_OCA
    table = torch.arange((window + size - 1) ** 2)
    assert table[overlapping_positions(window, size)].equal(table[official])


def test_global_average_is_taken_in_float32():
    """A float16 sum of 70 over 64 x 64 pixels is 286,720: far out of range (65,504)."""
    x = torch.full((1, 2, 64, 64), 70.0, dtype=torch.float16)
    assert GlobalAverage()(x).flatten().tolist() == [70.0, 70.0]


def test_autocast_stays_close_to_full_precision():
    torch.manual_seed(0)
    network = HAT(OFFICIAL_ILN, **TINY).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
    assert (found.float() - expected).abs().max() < 0.02


def test_a_network_without_upsampler_keeps_the_size():
    """Denoising and JPEG: the output is the input plus a residual, which is nothing while the last convolution is zero."""
    network = HAT(LN, **{**TINY, "scale": 1, "upsampler": "", "in_channels": 1}).eval()
    torch.nn.init.zeros_(network.conv_last.weight)
    torch.nn.init.zeros_(network.conv_last.bias)
    x = torch.rand(1, 1, 9, 14)
    with torch.no_grad():
        torch.testing.assert_close(network(x), x)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="depths has 2 groups and num_heads 1"):
        HAT(LN, depths=(2, 2), num_heads=(2,))
    with pytest.raises(ValueError, match=r"overlap_ratio=0.3: adds 1 tokens to a window of 4"):
        OverlappingCrossAttention(8, 2, 4, 0.3, 2.0, True, LN)
    with pytest.raises(ValueError, match="squeeze_factor=30: leaves none of 12 channels"):
        HAT(LN, **{**TINY, "squeeze_factor": 30})
    with pytest.raises(ValueError, match="compress_ratio=24: leaves none of 12 channels"):
        HAT(LN, **{**TINY, "compress_ratio": 24})
