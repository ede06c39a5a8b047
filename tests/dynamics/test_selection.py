"""Layers by name, by kind and by pattern, in all networks."""

import math

import pytest
import torch
from torch import nn

from irformer import create_model
from irformer.dynamics.features import measure, probe
from irformer.dynamics.selection import select_layers
from irformer.errors import UserError
from irformer.models import External
from irformer.models.interface import channels_of_groups

NETWORKS = ("swinir_tiny", "hat_tiny", "drct_tiny", "restormer_tiny")
KINDS = ("groups", "blocks", "attention", "mlp", "norms")


def names(network: nn.Module, *words: str) -> list[str]:
    return [layer.name for layer in select_layers(network, words)]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return create_model(request.param, norm="iln")


def test_every_kind_is_measured_along_the_channels(network):
    """The length of the energy shows the axis: no layer has as many channels as the image has rows, columns or images."""
    found = measure(network, torch.rand(2, network.in_channels, 40, 56), select_layers(network, KINDS))
    assert {measured.layer.kind for measured in found} == set(KINDS)
    declared = dict(zip(network.groups, channels_of_groups(network), strict=True))
    widths = {channels + 8 * i for channels in declared.values() for i in range(5)}  # in DRCT's groups, the blocks get wider
    for layer, values, energy in found:
        assert len(energy) == declared.get(layer.name, len(energy))
        assert len(energy) in widths, layer.name
        assert energy.mean() == pytest.approx(values["mean_square"], rel=1e-4)


def test_each_block_has_its_attention_mlp_and_norms(network):
    blocks, attention, mlps, norms = (select_layers(network, [kind]) for kind in KINDS[1:])
    inside = [layer for layer in norms if layer.name not in ("norm", "patch_embed.norm")]
    assert len(blocks) == len(attention) == len(mlps) == len(inside) // 2
    for block, *parts in zip(blocks, attention, mlps, inside[::2], inside[1::2], strict=True):
        assert all(part.name.startswith(f"{block.name}.") for part in parts)
    assert [layer.index for layer in blocks] == list(range(len(blocks)))


def test_declared_channels_are_those_of_the_outputs(network):
    found = measure(network, torch.rand(1, network.in_channels, 16, 16), select_layers(network, ["groups"]))
    assert [len(energy) for *_, energy in found] == channels_of_groups(network)


def test_patterns():
    network = create_model("swinir_tiny")
    assert names(network, "layers.*") == names(network, "groups") == [f"layers.{i}" for i in range(4)]
    assert names(network, "layers.1.**.attn") == [f"layers.1.residual_group.blocks.{i}.attn" for i in range(2)]
    assert names(network, "layers.2.*.blocks.*") == [f"layers.2.residual_group.blocks.{i}" for i in range(2)]
    assert names(network, "conv_*") == ["conv_first", "conv_after_body"]
    assert names(network, "**") == [name for name, _ in network.named_modules() if name]
    assert names(network, "patch_embed.**") == ["patch_embed.norm"]


def test_a_module_that_two_words_select_is_measured_once():
    network = create_model("swinir_tiny")
    layers = select_layers(network, ["layers.2", "groups"])
    assert [(layer.kind, layer.index, layer.name) for layer in layers] == [
        ("layers.2", 0, "layers.2"),
        ("groups", 0, "layers.0"),
        ("groups", 1, "layers.1"),
        ("groups", 3, "layers.3"),
    ]


def test_a_word_that_selects_nothing_is_an_error_with_names_that_exist():
    network = create_model("swinir_tiny")
    with pytest.raises(UserError) as error:
        select_layers(network, ["groups", "atention"], "callbacks.probe.layers")
    assert str(error.value) == (
        "callbacks.probe.layers=atention: no module of SwinIR matches; use groups, blocks, attention, mlp, norms, or a pattern of names "
        "such as scaling, patch_embed.norm, layers.0.residual_group, layers.0.residual_group.blocks; did you mean attention?"
    )


class Convolutions(nn.Module):
    """A network of another project."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 1), nn.LeakyReLU())
        self.token = nn.Linear(5, 7)
        self.tail = nn.Conv2d(7, 3, 1)
        nn.init.zeros_(self.body[0].weight)
        nn.init.ones_(self.body[0].bias)

    def forward(self, x):
        tokens = self.token(self.body(x).flatten(2).transpose(1, 2))
        return self.tail(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def test_networks_of_others_by_pattern():
    network = External(Convolutions())
    assert select_layers(network, ["groups"]) == []
    found = {measured.layer.name: measured for measured in measure(network, torch.rand(2, 3, 4, 6), select_layers(network, ["network.*"]))}
    assert {name: len(measured.energy) for name, measured in found.items()} == {"network.body": 5, "network.token": 7, "network.tail": 3}
    assert found["network.body"].values["channel_entropy"] == pytest.approx(math.log(5))
    with pytest.raises(
        UserError, match=r"layers=blocks: no module of External matches; use groups, or a pattern of names such as network,"
    ):
        select_layers(network, ["blocks"])


def test_a_module_without_features_is_an_error_that_names_it():
    class Returns(nn.Module):
        def forward(self, x):
            return {"image": x}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Returns()

        def forward(self, x):
            return self.part(x)["image"]

    with pytest.raises(UserError, match=r"layers=\*: part returns a dict: expected features \[B, C, H, W\] or"):
        probe(Whole(), torch.rand(1, 3, 4, 4), ["*"])
