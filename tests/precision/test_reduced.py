"""in_precision: what each precision computes, and what its record says."""

import doctest
import math
from typing import get_args

import pytest
import torch
from precision.networks import TINY, image, network, psnr, restored
from torch import nn

from irformer import list_norms, load_network
from irformer.errors import UserError
from irformer.models import External
from irformer.norms import BatchNorm
from irformer.precision import PRECISIONS, in_precision
from irformer.precision import reduced as reduced_module
from irformer.precision.half_precision import WideProduct
from irformer.schema.sections import Benchmark


def test_the_key_offers_the_precisions_of_the_function():
    assert get_args(get_args(Benchmark.__annotations__["precision"])[0]) == PRECISIONS


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("precision", "dtype", "least"), [("fp16", torch.float16, 55), ("bf16", torch.bfloat16, 40)])
def test_half_is_half_of_weights_and_activations(name, precision, dtype, least):
    net = network(name)
    reduced = in_precision(net, precision)
    assert {parameter.dtype for parameter in reduced.network.parameters()} == {dtype}
    seen = set()
    for group in reduced.network.groups.values():
        group.register_forward_hook(lambda _m, _i, out: seen.add(out.dtype))
    found = restored(reduced.network)
    assert seen == {dtype}
    assert found.dtype == torch.float32
    assert psnr(found, restored(net)) > least
    torch.testing.assert_close(found, restored(net.to(dtype), image().to(dtype)).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "norm"), [*(("swinir_tiny", norm) for norm in list_norms()), *((name, norm) for name in TINY for norm in ("ln", "iln"))]
)
def test_safe_is_within_60_db(name, norm):
    net = network(name, norm)
    reduced = in_precision(net, "fp16_safe")
    streams = set()
    for group in reduced.network.groups.values():
        group.register_forward_hook(lambda _m, _i, out: streams.add(out.dtype))
    assert psnr(restored(reduced.network), restored(net)) > 60
    assert streams == {torch.float32}
    in_half = [parameter for parameter in reduced.network.parameters() if parameter.dtype == torch.float16]
    assert bool(in_half) == (norm not in ("none", "rezero")), "branches that read the stream itself stay float32"


def test_fp32_is_the_network():
    net = network("hat_tiny")
    reduced = in_precision(net, "fp32")
    assert torch.equal(restored(reduced.network), restored(net))
    assert reduced.rules == {}


def test_the_record_counts_calls_and_keeps_the_largest():
    reduced = in_precision(network(), "fp16")
    assert reduced.record().images == 0
    assert reduced.record().largest == {}
    assert reduced.record().peak == ("", 0.0)
    small, large = image() * 0.5, image()
    restored(reduced.network, small)
    first = reduced.record()
    restored(reduced.network, large)
    both = reduced.record()
    assert (first.images, both.images) == (1, 2)
    assert both.values == 2 * first.values == 2 * 4 * image().numel()
    assert both.non_finite == 0
    assert all(both.largest[name] >= value for name, value in first.largest.items())
    assert {
        "conv_first",
        "patch_embed.norm",
        "layers.0",
        "layers.0.residual_group.blocks.0.attn.proj",
        "upsample.0",
    } <= first.largest.keys()
    assert next(iter(first.largest)) == "conv_first"
    assert both.as_dict()["largest"] == both.largest
    reduced.reset()
    assert reduced.record().images == 0


def test_the_largest_activation_is_that_of_the_layer():
    net = network()
    seen = {}
    net.layers[0].register_forward_hook(lambda _m, _i, out: seen.update(largest=float(out.abs().max())))
    restored(net)
    reduced = in_precision(net, "fp32")
    restored(reduced.network)
    assert reduced.record().largest["layers.0"] == pytest.approx(seen["largest"], rel=1e-6)


def test_an_overflow_is_counted_and_named():
    """Infinity where the value is too large, NaN in what follows."""
    net = network()
    net.conv_first.bias.data[0] = 1e5
    reduced = in_precision(net, "fp16")
    assert not torch.isfinite(restored(reduced.network)).any()
    record = reduced.record()
    assert record.first_overflow == "conv_first"
    assert record.peak == ("conv_first", math.inf)
    assert record.non_finite == record.values
    assert in_precision(net, "bf16").network(image()).isfinite().all()


def test_statistics_of_batch_norm_stay_float32():
    net = network(norm="batch_eval")
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.running_var.fill_(1e6)
    reduced = in_precision(net, "fp16")
    assert psnr(restored(reduced.network), restored(net)) > 60


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp16_safe"])
def test_a_black_image_gives_no_nan(precision):
    """Restormer divides by the norms of queries and keys, which are zero here."""
    net = network("restormer_tiny", "ln_biasfree")
    for parameter in net.parameters():
        parameter.data.masked_fill_(torch.tensor(parameter.dim() == 1 and parameter.numel() < 4), 0)
    assert torch.isfinite(restored(in_precision(net, precision).network, torch.zeros(1, 3, 16, 16))).all()


def test_a_product_in_float16_cannot_overflow():
    layer = nn.Linear(64, 8)
    layer.weight.data = torch.randn(8, 64) * torch.logspace(-6, 6, 8).view(-1, 1)
    layer.weight.data[3] = 0
    x = 60000 * torch.rand(5, 64)
    with torch.no_grad():
        found, expected = WideProduct(layer)(x.half()), layer(x.half().float())
        assert found.dtype == torch.float32
        assert expected.abs().max() > 65504
        sums = (x.half().float().abs() @ layer.weight.abs().T) + layer.bias.abs()
        assert ((found - expected).abs() <= 2e-3 * sums).all()
        far = WideProduct(layer, any_input=True)(1e6 * x)
        assert ((far - layer(1e6 * x)).abs() <= 2e-3 * 1e6 * sums).all()


class Growing(nn.Module):
    """A network of another project whose features exceed 65504."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.first.weight.data *= factor
        self.first.bias.data *= factor
        self.second.bias.data *= factor
        self.last.weight.data /= factor

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.second(x))


def test_networks_of_unknown_structure():
    net = External(Growing(2.0**20))
    assert not torch.isfinite(restored(in_precision(net, "fp16").network)).all()
    safe = in_precision(net, "fp16_safe")
    assert psnr(restored(safe.network), restored(net)) > 60
    assert "inputs divided by a power of two" in safe.record().scheme
    assert safe.record().peak[1] > 65504


class Mixed(nn.Module):
    """A network that makes float32 of whatever it gets."""

    scale = 1
    in_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x.float())


def test_what_does_not_run_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"precision=fp16: Mixed: on an image of 32x32 pixels it fails \(.*\); use another precision"):
        in_precision(Mixed(), "fp16")
    with pytest.raises(UserError, match=r"precision=fp61: unknown precision; known: fp32, .*; did you mean fp16\?"):
        in_precision(Mixed(), "fp61")


def test_a_trained_network(weights_root):
    net = load_network(weights_root / "craft_x4.pth")
    x = torch.nn.functional.interpolate(image(8, 8), size=(32, 32), mode="bicubic").clamp(0, 1)
    expected = restored(net, x)
    for precision, least in (("fp16", 65), ("fp16_safe", 65)):
        reduced = in_precision(net, precision)
        assert psnr(restored(reduced.network, x), expected) > least, precision
        assert reduced.record().first_overflow is None
    assert 100 < reduced.record().largest["network.layers.3"] < 65504


def test_the_example_in_the_docstring():
    found = doctest.testmod(reduced_module)
    assert found.attempted >= 5
    assert not found.failed
