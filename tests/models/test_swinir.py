"""SwinIR: equality with the official network, parameter counts, and what a network must allow whatever its norm."""

import pytest
import torch
from parity import (
    LN,
    OFFICIAL_ILN,
    assert_can_be_copied_after_a_training_step,
    assert_compiles_for_all_sizes,
    count_parameters,
    relative_difference,
    take_official_weights,
)
from spandrel.architectures.SwinIR import SwinIR as OfficialSwinIR

from irformer.models import SwinIR
from irformer.models.windows import shifted_window_masks

TINY = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "upsampler": "pixelshuffledirect"}

# The official configurations by the names of the paper: our arguments, and the official parameter count in the paper's tables or README.
CLASSICAL = {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "upsampler": "pixelshuffle"}
LIGHT = {"embed_dim": 60, "depths": (6,) * 4, "num_heads": (6,) * 4, "upsampler": "pixelshuffledirect"}


def _official(scale: int, **arguments) -> torch.nn.Module:
    names = {"pixel_range": "img_range", "in_channels": "in_chans", "norm": None}
    keywords = {"upscale": scale, "window_size": 8, "mlp_ratio": 2.0, "img_size": 8 * arguments.get("window_size", 8)}
    keywords |= {names.get(key, key): list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    return OfficialSwinIR(**keywords).eval()


@pytest.mark.parametrize(
    ("arguments", "scale", "size"),
    [
        (CLASSICAL, 2, (16, 24)),
        (CLASSICAL, 3, (19, 13)),
        (CLASSICAL, 4, (17, 30)),
        (LIGHT, 2, (21, 35)),
        (LIGHT, 3, (24, 16)),
        (LIGHT, 4, (9, 31)),
        ({**LIGHT, "upsampler": "nearest+conv"}, 4, (17, 20)),
        ({**LIGHT, "upsampler": "", "in_channels": 1}, 1, (17, 20)),
        ({**LIGHT, "upsampler": "", "in_channels": 1, "window_size": 7, "pixel_range": 255.0}, 1, (20, 29)),
        ({**LIGHT, "upsampler": "pixelshuffle", "resi_connection": "3conv"}, 4, (16, 18)),
    ],
)
def test_equals_the_official_network(arguments, scale, size):
    torch.manual_seed(0)
    reference = _official(scale, **arguments)
    network = SwinIR(LN, scale=scale, **arguments).eval()
    take_official_weights(network, reference)
    x = torch.rand(2, arguments.get("in_channels", 3), *size)
    with torch.no_grad():
        assert relative_difference(network(x), reference(x)) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "scale", "count"),
    [(CLASSICAL, 2, 11_752_487), (CLASSICAL, 4, 11_900_199), (LIGHT, 2, 910_152), (LIGHT, 3, 918_267), (LIGHT, 4, 929_628)],
)
def test_parameter_counts_are_the_official_ones(arguments, scale, count):
    """The paper's 878K, 886K and 897K for the light networks leave out the 32,400 entries of the position bias tables."""
    assert count_parameters(SwinIR(LN, scale=scale, **arguments)) == count
    assert count_parameters(_official(scale, **arguments)) == count


def test_iln_adds_no_parameters():
    assert count_parameters(SwinIR(LN, **TINY)) == count_parameters(SwinIR(OFFICIAL_ILN, **TINY))


def test_only_parameters_are_saved():
    network = SwinIR(OFFICIAL_ILN, **TINY)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_a_training_step_leaves_a_network_that_can_be_copied(norm):
    assert_can_be_copied_after_a_training_step(SwinIR(norm, **TINY))


@pytest.mark.parametrize("norm", [LN, OFFICIAL_ILN], ids=["ln", "iln"])
def test_compiles_without_graph_breaks_and_once_more_for_all_other_sizes(norm):
    network = SwinIR(norm, **{**TINY, "depths": (2,), "num_heads": (2,)})
    assert_compiles_for_all_sizes(network, [(48, 48), (56, 64), (51, 70), (65, 47), (96, 56)])


def test_autocast_stays_close_to_full_precision():
    torch.manual_seed(0)
    network = SwinIR(OFFICIAL_ILN, **TINY).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
    assert (found.float() - expected).abs().max() < 0.02


def test_a_batch_gives_what_its_images_give_alone():
    torch.manual_seed(0)
    network = SwinIR(OFFICIAL_ILN, **TINY).eval()
    x = torch.rand(3, 3, 16, 24)
    with torch.no_grad():
        together, alone = network(x), torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_tokens_that_came_around_attend_within_their_own():
    """Windows of 2 shifted by 1: at the right the columns part, at the bottom the rows, and in the corner every token stands alone."""
    right, bottom, corner = shifted_window_masks(2, 1)
    assert (~right).equal(torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool))
    assert (~bottom).equal(torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool))
    assert (~corner).equal(torch.eye(4, dtype=torch.bool))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_heads: 5 heads do not divide 12 channels"):
        SwinIR(LN, embed_dim=12, depths=(1,), num_heads=(5,))
    with pytest.raises(ValueError, match="depths has 2 groups and num_heads 1"):
        SwinIR(LN, depths=(2, 2), num_heads=(2,))
    with pytest.raises(ValueError, match="scale=5"):
        SwinIR(LN, scale=5, embed_dim=12, depths=(1,), num_heads=(2,), upsampler="pixelshuffle")
