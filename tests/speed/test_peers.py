"""The networks that are compared do the same work: their outputs agree."""

import pytest
import torch

from irformer.errors import UserError
from irformer.speed import peers
from irformer.speed.peers import OFFICIAL, networks_to_compare, output_difference


@pytest.mark.parametrize(("model", "scale", "patch"), [("swinir_tiny", 2, 16), ("drct", 2, 32), ("restormer_tiny", None, 16)])
def test_ours_and_the_official_network_have_the_same_weights(model, scale, patch):
    networks, note = networks_to_compare(model, scale, ["ln", "iln"], patch_size=patch)
    assert note == ""
    assert type(networks[OFFICIAL]).__module__.startswith("spandrel")
    assert output_difference(networks["ln"], networks[OFFICIAL]) <= 1e-5
    assert all(parameter.requires_grad for parameter in networks[OFFICIAL].parameters())
    ours, iln = (dict(networks[name].named_parameters()) for name in ("ln", "iln"))
    assert ours.keys() == iln.keys()
    assert all(torch.equal(ours[name], iln[name]) for name in ours)


def test_hat_keeps_its_weights():
    """hat_tiny upsamples as the official HAT cannot; the smallest that both have is hat_mini."""
    networks, note = networks_to_compare("hat_mini", 2, ["ln"])
    assert note == ""
    assert output_difference(networks["ln"], networks[OFFICIAL]) <= 1e-5


def test_another_network_is_noticed(monkeypatch):
    original = peers.official_weights

    def changed(*arguments):
        return {name: value + 0.1 if name == "conv_first.bias" else value for name, value in original(*arguments).items()}

    monkeypatch.setattr(peers, "official_weights", changed)
    with pytest.raises(UserError, match=r"model=swinir_tiny: the outputs of irformer and of spandrel .* differ by 0\.\d"):
        networks_to_compare("swinir_tiny", 2, ["ln"])


def test_without_spandrel_the_peer_is_left_out_with_a_remedy(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda _package: None)
    networks, note = networks_to_compare("restormer_tiny", None, ["ln"])
    assert list(networks) == ["ln"]
    assert note.startswith("restormer_tiny is not compared with an official network: ")
    assert note.endswith("pip install spandrel_extra_arches")


def test_a_network_without_an_official_counterpart_is_measured_alone():
    networks, note = networks_to_compare("hat_tiny", 2, ["ln"])
    assert list(networks) == ["ln"]
    assert "the official HAT has no upsampler" in note


def test_only_layer_norm_has_an_official_counterpart():
    networks, note = networks_to_compare("swinir_tiny", 2, ["iln"])
    assert (list(networks), note) == (["iln"], "")
