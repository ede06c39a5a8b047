"""Every norm of configs/norm in every network: what must hold of each pair, whatever either computes."""

import copy
import io
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from irformer.models import DRCT, HAT, Restormer, SwinIR
from irformer.models.blocks import pad_to_multiple
from irformer.norms import NormScheme

# The smallest network of each class that still has all its kinds of blocks. A new network is one line here.
NETWORKS = {
    "swinir": partial(SwinIR, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4, upsampler="pixelshuffledirect"),
    "hat": partial(
        HAT, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4, compress_ratio=2, squeeze_factor=4, upsampler="pixelshuffledirect"
    ),
    "drct": partial(DRCT, embed_dim=8, num_heads=(2, 2), window_size=4, growth_channels=4, upsampler="pixelshuffledirect"),
    "restormer": partial(Restormer, dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 2, 2, 4)),
}
NORM_FILES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml"))}

every_network = pytest.mark.parametrize("network_name", NETWORKS)
every_norm = pytest.mark.parametrize("norm_name", NORM_FILES)


def _scheme(norm_name: str) -> NormScheme:
    return instantiate(OmegaConf.load(NORM_FILES[norm_name]))


def _network(network_name: str, norm_name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[network_name](_scheme(norm_name))


def _train_one_step(network: nn.Module) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    network(torch.rand(2, 3, 16, 24, generator=generator)).square().mean().backward()
    optimizer.step()


@every_norm
def test_a_norm_is_selected_by_the_name_of_its_file(norm_name):
    assert _scheme(norm_name).name == norm_name


@every_network
@every_norm
def test_every_parameter_gets_a_gradient(network_name, norm_name):
    """One without a gradient stops distributed training, and one whose gradient is 0 is not used.

    Parameters are moved off their start first: there ReZero's scale 0 cuts the branches off.
    """
    network = _network(network_name, norm_name).train()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    network(torch.rand(2, 3, 16, 24)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_network
@every_norm
def test_any_size_is_the_padded_size_cut(network_name, norm_name):
    network = _network(network_name, norm_name)
    _train_one_step(network)
    network.eval()
    x = torch.rand(2, network.in_channels, 13, 19)
    with torch.no_grad():
        found, padded = network(x), network(pad_to_multiple(x, network.size_multiple))
    assert found.shape == (2, network.in_channels, 13 * network.scale, 19 * network.scale)
    assert found.isfinite().all()
    torch.testing.assert_close(found, padded[:, :, : 13 * network.scale, : 19 * network.scale])


@every_network
@every_norm
def test_autocast_stays_close_to_full_precision(network_name, norm_name):
    network = _network(network_name, norm_name).eval()
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
    assert (found.float() - expected).abs().max() < 0.02 * expected.abs().max()


@every_network
@every_norm
def test_a_saved_network_comes_back_to_the_last_bit(network_name, norm_name):
    """Running statistics too: loaded into a network with other weights, the state dict gives the same pixels."""
    network, other = (_network(network_name, norm_name, seed) for seed in (0, 1))
    _train_one_step(network)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = torch.rand(1, 3, 13, 19)
    with torch.no_grad():
        assert other.eval()(x).equal(network.eval()(x))


@every_network
@every_norm
def test_a_trained_network_can_be_copied(network_name, norm_name):
    network = _network(network_name, norm_name)
    _train_one_step(network)
    twin = copy.deepcopy(network).eval()
    x = torch.rand(1, 3, 13, 19)
    with torch.no_grad():
        assert twin(x).equal(network.eval()(x))


# Each norm in one network, and i-LN in all of them; the other pairs take minutes.
@pytest.mark.parametrize(
    ("network_name", "norm_name"),
    [
        pytest.param(network, norm, marks=[] if network == "swinir" or norm == "iln" else pytest.mark.slow)
        for network in NETWORKS
        for norm in NORM_FILES
    ],
)
def test_compiles_as_one_graph(network_name, norm_name):
    """What a graph break would raise; that other sizes compile once more alone is tested with each network."""
    torch._dynamo.reset()
    network = _network(network_name, norm_name).eval()
    x = torch.rand(1, 3, 8, 16)
    with torch.no_grad():
        found = torch.compile(network, fullgraph=True, backend="eager", dynamic=False)(x)
        torch.testing.assert_close(found, network(x))
