"""scale_stream: the same images from a stream of another magnitude."""

import pytest
import torch
from precision.networks import TINY, image, network, psnr, restored

from irformer.errors import UserError
from irformer.models.interface import groups_of
from irformer.precision import in_precision, scale_stream

EXACT = ["ln", "iln", "iln_norescale", "ln_rescale", "rms", "ln_biasfree", "layerscale", "instance", "batch", "batch_eval", "dyt"]


def group_outputs(net, x):
    seen = {}
    hooks = [group.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out})) for name, group in groups_of(net).items()]
    restored(net, x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("norm", EXACT)
@pytest.mark.parametrize("name", TINY)
def test_a_power_of_two_changes_no_bit_of_the_image(name, norm):
    """Every intermediate value is multiplied without a rounding error; eps times c^2 included."""
    net = network(name, norm)
    scaled = scale_stream(net, 2.0**15)
    assert torch.equal(restored(scaled), restored(net))
    before, after = (group_outputs(n, image()) for n in (net, scaled))
    assert before
    for group, features in before.items():
        assert torch.equal(after[group], features * 2**15), group


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("norm", ["ln", "iln"])
def test_any_factor_gives_the_same_image(name, norm):
    net = network(name, norm)
    torch.testing.assert_close(restored(scale_stream(net, 1234.5)), restored(net), rtol=0, atol=1e-5)
    wide = net.double()
    x = image().double()
    torch.testing.assert_close(restored(scale_stream(wide, 0.0123), x), restored(wide, x), rtol=0, atol=1e-10)
    torch.testing.assert_close(restored(scale_stream(wide, 1e6), x), restored(wide, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("ends", ["same", "ln", "affine", "none"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"upsampler": "pixelshuffle"},
        {"upsampler": "pixelshuffledirect"},
        {"upsampler": "nearest+conv"},
        {"scale": 1},
        {"resi_connection": "3conv"},
        {"resi_connection": "identity"},
    ],
    ids=str,
)
def test_every_end_and_upsampler(ends, overrides):
    net = network(norm="ln", **{"norm.ends": ends, **overrides})
    scaled = scale_stream(net, 2.0**-9)
    assert torch.equal(restored(scaled), restored(net))
    before, after = (group_outputs(n, image()) for n in (net, scaled))
    assert all(torch.equal(after[group], features * 2.0**-9) for group, features in before.items())


def test_the_network_is_not_changed():
    net = network("hat_tiny")
    state, before = {name: value.clone() for name, value in net.state_dict().items()}, restored(net)
    scale_stream(net, 100.0)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(restored(net), before)


def test_the_old_eps_would_change_the_image_within_its_bound():
    """The bound of the docstring: y differs by a factor of at most 1 + eps / (2 var)."""
    c, eps = 256.0, 1e-5
    x = torch.randn(1, 4, 4, 16, dtype=torch.float64) * 0.05
    norm = torch.nn.functional.layer_norm
    factor = norm(c * x, (16,), eps=eps) / norm(x, (16,), eps=eps)
    variance = x.var(-1, correction=0, keepdim=True)
    assert (factor > 1 + 1e-5).all()
    assert (factor <= 1 + eps / (2 * variance)).all()
    torch.testing.assert_close(norm(c * x, (16,), eps=eps * c**2), norm(x, (16,), eps=eps), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["swinir_tiny", "hat_tiny"])
def test_a_stream_beyond_65504_fails_in_fp16_and_its_twin_does_not(name):
    net = network(name)
    expected = restored(net)
    scaled = scale_stream(net, 2.0**17)
    in_fp32 = in_precision(scaled, "fp32")
    restored(in_fp32.network)
    assert in_fp32.record().peak[1] > 65504
    broken, twin, safe = (in_precision(n, p) for n, p in ((scaled, "fp16"), (net, "fp16"), (scaled, "fp16_safe")))
    assert not torch.isfinite(restored(broken.network)).any()
    record = broken.record()
    assert record.non_finite == record.values == expected.numel()
    assert record.first_overflow == "patch_embed.norm"
    assert psnr(restored(twin.network), expected) > 50
    assert twin.record().non_finite == 0
    assert psnr(restored(safe.network), expected) > 60
    assert safe.record().non_finite == 0
    assert safe.record().first_overflow is None
    assert safe.record().peak[1] == pytest.approx(in_fp32.record().peak[1], rel=0.01)


@pytest.mark.parametrize("norm", ["none", "rezero"])
def test_a_branch_that_reads_the_stream_itself_is_refused(norm):
    with pytest.raises(UserError, match=r"layers\.0\.residual_group\.blocks\.0\.norm1 is (NoNorm|ReZero), whose result depends on"):
        scale_stream(network(norm=norm), 2.0)


def test_unknown_networks_and_factors_are_refused():
    with pytest.raises(UserError, match="scale_stream: Conv2d is a network of unknown structure; expected irformer's SwinIR"):
        scale_stream(torch.nn.Conv2d(3, 3, 3), 2.0)
    for c in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"scale_stream: c=.*: expected a finite factor above 0"):
            scale_stream(network(), c)
