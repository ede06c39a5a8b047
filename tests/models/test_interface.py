"""The contract of a network: its defaults, what it declares, and networks of other projects behind it."""

import re

import pytest
import torch
from torch import Tensor, nn

from irformer import create_model
from irformer.errors import UserError
from irformer.evaluation.restorers import NetworkRestorer
from irformer.models import External
from irformer.models.interface import channels_of_groups, groups_of, multiple_of, padding_of, require_images, require_network


class Plain(nn.Module):
    """As little as a network can be."""

    scale, in_channels = 1, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        return self.conv(lq)


def with_attributes(**attributes) -> nn.Module:
    network = Plain()
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


def test_a_plain_module_needs_no_more_than_scale_and_channels():
    network = Plain()
    require_network(network, "Plain")
    require_images(network, "Plain", 8)
    assert (multiple_of(network), padding_of(network), groups_of(network), channels_of_groups(network)) == (1, "reflect_min", {}, [])
    assert NetworkRestorer(network, "network").padding == "reflect_min"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"scale": None}, "scale=None: expected a whole number from 1 to 64"),
        ({"scale": 2.0}, "scale=2.0: expected a whole number from 1 to 64"),
        ({"size_multiple": 0}, "size_multiple=0: expected a whole number from 1 to 1024"),
        ({"test_padding": "mirror"}, "test_padding=mirror: expected flip_always or reflect_min"),
        (
            {"groups": nn.ModuleList([nn.Identity()])},
            "groups is a ModuleList: expected a dict that maps group names to modules",
        ),
        ({"groups": {"a": 1}}, "groups is a dict: expected a dict that maps group names to modules"),
        (
            {"groups": {"a": nn.Identity()}, "group_channels": 3},
            "group_channels=3: expected a dict that maps group names to channels",
        ),
        (
            {"layer_names": {"blocks": "a.*"}},
            "layer_names={'blocks': 'a.*'}: expected a dict that maps kinds of layers to lists of module names",
        ),
    ],
)
def test_a_wrong_declaration_is_named(attributes, expected):
    with pytest.raises(UserError) as caught:
        require_network(with_attributes(**attributes), "mypkg.Plain")
    assert str(caught.value) == f"mypkg.Plain: {expected}"


def test_what_is_missing_is_named():
    with pytest.raises(UserError) as caught:
        require_network(nn.Conv2d(3, 3, 3), "mypkg.Net")
    assert str(caught.value) == (
        "mypkg.Net is not a network: it has no scale; set them as attributes, or use model=external model.network._target_=mypkg.Net"
    )
    with pytest.raises(UserError, match=r"^mypkg\.Net is not a network: expected a torch\.nn\.Module, found int$"):
        require_network(3, "mypkg.Net")


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (with_attributes(scale=2), r"8x8 pixels it returns \(1, 3, 8, 8\): expected one tensor of shape \(1, 3, 16, 16\)"),
        (with_attributes(conv=nn.Conv2d(1, 3, 3, padding=1)), r"8x8 pixels it fails \(RuntimeError: .*\)$"),
        (
            with_attributes(conv=nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 1), nn.PixelShuffle(2))),
            r"9x10 pixels it fails \(.*\); a network must accept any size, and model=external pads to model\.size_multiple$",
        ),
        (with_attributes(forward=lambda lq: [lq]), r"it returns a list: expected one tensor"),
        (with_attributes(forward=lambda lq: lq.int()), r"it returns torch\.int32: expected floating point values"),
    ],
)
def test_a_network_that_returns_no_images_is_named(network, expected):
    with pytest.raises(UserError, match=f"^mine: on an image of .*{expected}"):
        require_images(network, "mine", 8)


def test_a_trial_leaves_no_trace():
    network = with_attributes(conv=nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    drawn = torch.rand(2)
    torch.manual_seed(1)
    require_images(network, "mine", 8)
    torch.testing.assert_close(torch.rand(2), drawn, rtol=0, atol=0)
    assert network.conv[0].training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("model", ["swinir_tiny", "hat_tiny", "drct_tiny", "restormer_tiny"])
def test_the_declared_channels_are_those_that_are_measured(model):
    network = create_model(model)
    declared = channels_of_groups(network)

    class Undeclared(nn.Module):
        scale, in_channels, groups, channels_first = network.scale, 3, network.groups, network.channels_first

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, lq: Tensor) -> Tensor:
            return self.network(lq)

    assert channels_of_groups(Undeclared()) == declared
    assert len(declared) == len(network.groups) > 1


def test_each_level_of_restormer_has_its_own_channels():
    assert channels_of_groups(create_model("restormer_tiny", overrides={"dim": 8})) == [8, 16, 32, 64, 32, 16, 16, 16]


# Networks of other projects


def external(target: str, scale: int = 1, **arguments) -> External:
    network = create_model("external", scale=scale, overrides={"network": {"_target_": target, **arguments}})
    assert isinstance(network, External)
    return network


SMALL = {
    "spandrel.architectures.NAFNet.NAFNet": (1, 1, {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "spandrel.architectures.FFTformer.FFTformer": (1, 32, {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}),
    "spandrel.architectures.FBCNN.FBCNN": (1, 1, {"nc": [4, 4, 4, 512], "nb": 2}),  # returns the image and a quality
    "spandrel.architectures.SPAN.SPAN": (2, 1, {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "spandrel_extra_arches.architectures.SRFormer.SRFormer": (
        2,
        1,
        {
            "depths": [2],
            "num_heads": [2],
            "embed_dim": 16,
            "window_size": 8,
            "img_size": 16,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
    ),
}


@pytest.mark.parametrize("target", SMALL)
def test_scale_and_multiple_come_from_spandrel(target):
    pytest.importorskip(target.partition(".")[0])
    scale, multiple, arguments = SMALL[target]
    network = external(target, scale, **arguments)
    assert network.size_multiple == multiple
    lq = torch.rand(2, 3, 13, 10)
    kept = lq.clone()
    assert network(lq).shape == (2, 3, 13 * scale, 10 * scale)
    torch.testing.assert_close(lq, kept, rtol=0, atol=0)
    wrong = 4 if scale == 2 else 2
    with pytest.raises(UserError, match=rf"model\.scale={wrong}: this {target.rpartition('.')[2]} upscales by {scale}; change its arg"):
        external(target, wrong, **arguments)


def test_the_multiple_of_other_networks_is_a_key():
    unshuffle = {"_target_": "torch.nn.PixelUnshuffle", "downscale_factor": 4}
    shuffle = {"_target_": "torch.nn.PixelShuffle", "upscale_factor": 4}
    sequence = {"_target_": "torch.nn.Sequential", "_args_": [unshuffle, shuffle]}
    network = create_model("external", scale=1, overrides={"network": sequence, "size_multiple": 4})
    lq = torch.rand(1, 3, 5, 7)
    torch.testing.assert_close(network(lq), lq, rtol=0, atol=0)
    torch.testing.assert_close(network(lq[:, :, :1, :1]), lq[:, :, :1, :1], rtol=0, atol=0)


def test_an_external_network_has_to_be_named():
    with pytest.raises(UserError, match=re.escape("model.network._target_ is required: set model.network._target_=MODULE.CLASS")):
        create_model("external")
