"""DRCT: equality with the official network, parameter counts, and what a network must allow whatever its norm."""

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
)
from spandrel.architectures.DRCT import DRCT as OfficialDRCT  # noqa: N811 - a class named by an acronym

from irformer.models import DRCT
from irformer.models.blocks import pad_to_multiple

SMALL = {"embed_dim": 24, "growth_channels": 8, "num_heads": (4, 4), "window_size": 8}
TINY = {"embed_dim": 12, "growth_channels": 4, "num_heads": (2,), "window_size": 4, "upsampler": "pixelshuffledirect"}

# The official configurations by the names of the paper.
DRCT_M = {"embed_dim": 180, "growth_channels": 32, "num_heads": (6,) * 6, "window_size": 16}
DRCT_L = {**DRCT_M, "num_heads": (6,) * 12}


def _official(scale: int, **arguments) -> torch.nn.Module:
    names = {"growth_channels": "gc", "pixel_range": "img_range", "in_channels": "in_chans"}
    keywords = {"upscale": scale, "mlp_ratio": 2.0, "img_size": 64, "upsampler": "pixelshuffle"}
    keywords |= {names.get(key, key): value for key, value in arguments.items()}
    return OfficialDRCT(depths=(6,) * len(arguments["num_heads"]), **keywords).eval()


@pytest.mark.parametrize(
    ("arguments", "scale", "size"),
    [
        (SMALL, 2, (16, 24)),
        (SMALL, 3, (21, 35)),
        (SMALL, 4, (17, 64)),
        ({**SMALL, "num_heads": (3, 6), "mlp_ratio": 1.5}, 2, (19, 30)),
        ({**SMALL, "in_channels": 1, "qkv_bias": False, "pixel_range": 255.0, "resi_connection": "identity"}, 2, (64, 64)),
        ({**DRCT_M, "num_heads": (6,)}, 4, (17, 30)),
    ],
)
def test_equals_the_official_network(arguments, scale, size):
    """The official network takes multiples of its window; its test code pads by reflection and crops."""
    torch.manual_seed(0)
    reference = _official(scale, **arguments)
    network = DRCT(LN, scale=scale, **arguments).eval()
    take_official_weights(network, reference)
    H, W = size
    x = torch.rand(2, arguments.get("in_channels", 3), H, W)
    with torch.no_grad():
        expected = reference(pad_to_multiple(x, arguments["window_size"]))[:, :, : scale * H, : scale * W]
        assert relative_difference(network(x), expected) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "scale", "count"),
    [
        (DRCT_M, 2, 13_991_867),
        (DRCT_M, 3, 14_176_507),
        (DRCT_M, 4, 14_139_579),
        (DRCT_L, 4, 27_580_719),
    ],
)
def test_parameter_counts_are_the_official_ones(arguments, scale, count):
    """The official README gives 14.13M for DRCT and 27.58M for DRCT-L at x4."""
    with torch.device("meta"):
        assert count_parameters(DRCT(LN, scale=scale, **arguments)) == count
    assert count_parameters(_official(scale, **arguments)) == count


def test_drop_path_is_the_official_one():
    """One probability for the five blocks of a group, which the official code counts as six."""
    official = _official(2, **{**SMALL, "num_heads": (4, 4, 4)}, drop_path_rate=0.3)
    network = DRCT(LN, **{**SMALL, "num_heads": (4, 4, 4)}, drop_path_rate=0.3)
    for reference, group in zip(official.layers, network.layers, strict=True):
        for i in range(1, 6):
            expected = getattr(reference.get_submodule(f"swin{i}.drop_path"), "drop_prob", 0.0)
            assert group.get_submodule(f"swin{i}.drop_path").drop_prob == pytest.approx(expected, rel=1e-6)


def test_iln_adds_no_parameters():
    assert count_parameters(DRCT(LN, **TINY)) == count_parameters(DRCT(OFFICIAL_ILN, **TINY))


def test_only_parameters_are_saved():
    network = DRCT(OFFICIAL_ILN, **TINY)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_gradients_flow_through_the_statistics():
    torch.manual_seed(0)
    assert_gradients_are_right(DRCT(OFFICIAL_ILN, **TINY))


@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_a_training_step_leaves_a_network_that_can_be_copied(norm):
    assert_can_be_copied_after_a_training_step(DRCT(norm, **TINY))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_compiles_without_graph_breaks_and_once_more_for_all_other_sizes(norm):
    assert_compiles_for_all_sizes(DRCT(norm, **TINY), [(24, 24), (28, 32), (25, 34), (33, 23), (48, 28)])


def test_autocast_stays_close_to_full_precision():
    torch.manual_seed(0)
    network = DRCT(OFFICIAL_ILN, **TINY).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
    assert (found.float() - expected).abs().max() < 0.02


def test_groups_are_named_in_the_order_of_depth():
    network = DRCT(LN, **SMALL)
    assert list(network.groups) == ["layers.0", "layers.1"]
    assert list(network.groups.values()) == list(network.layers)


def test_wrong_arguments_are_named():
    """14 channels are no multiple of 4 heads, so that the second block takes 4 - 14 % 4 = 2; 17 are none of 4, and 4 - 17 % 4 is 3."""
    assert DRCT(LN, **{**TINY, "num_heads": (4,), "growth_channels": 2}).layers[0].swin2.attn.heads == 2
    with pytest.raises(ValueError, match="num_heads: 3 heads do not divide 17 channels"):
        DRCT(LN, **{**TINY, "num_heads": (4,), "growth_channels": 5})
    with pytest.raises(ValueError, match="scale=5"):
        DRCT(LN, **{**TINY, "upsampler": "pixelshuffle"}, scale=5)
