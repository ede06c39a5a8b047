"""NetworkRestorer in a precision: what overflows is an error at the first image, and fp16_safe restores it."""

import numpy as np
import pytest
import torch
from conftest import picture
from precision.networks import TINY, network, psnr

from irformer import bounded
from irformer.errors import UserError
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer, PrecisionOverflowError, to_image
from irformer.evaluation.tiling import TiledRestorer
from irformer.precision import scale_stream

PHOTO = picture(24, 32)
BEYOND = 2.0**20  # streams of these networks have a magnitude of about 1


@pytest.mark.parametrize("name", TINY)
def test_a_stream_beyond_65504_is_restored_by_fp16_safe_and_refused_by_fp16(name):
    scaled = scale_stream(network(name), BEYOND)
    expected = NetworkRestorer(scaled, "reflect_min").pixels(PHOTO)
    safe = NetworkRestorer(scaled, "reflect_min", precision="fp16_safe")
    assert psnr(safe.pixels(PHOTO), expected) > 60
    assert safe.reduced is not None
    assert safe.reduced.record().peak[1] > 65504
    half = NetworkRestorer(scaled, "reflect_min", precision="fp16")
    line = r"precision fp16: activations overflow in [\w.]+, so the restored image would be black \(.* values are NaN or infinite\); use "
    for restorer in (half, TiledRestorer(half, 16, 8), NetworkRestorer(SelfEnsemble(scaled), "reflect_min", precision="fp16")):
        with pytest.raises(PrecisionOverflowError, match=f"{line}precision fp16_safe, bf16 or fp32"):
            restorer(PHOTO)


def test_an_overflow_that_the_image_does_not_show_is_an_error():
    """tanh turns infinity into 1: the image is finite and wrong."""
    scaled = scale_stream(network(norm="dyt"), BEYOND)
    with pytest.raises(PrecisionOverflowError, match="activations overflow in "):
        NetworkRestorer(scaled, "reflect_min", precision="fp16")(PHOTO)


def test_the_network_is_left_as_it_is_and_each_image_is_judged_by_itself():
    net = network()
    restorer = NetworkRestorer(net, "reflect_min", precision="fp16")
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert restorer.network is not net
    with pytest.raises(PrecisionOverflowError):
        restorer.apply(torch.full((1, 3, 16, 16), 1e6))
    assert restorer(PHOTO).shape == (48, 64, 3)


@pytest.mark.parametrize(("precision", "least"), [("bf16", 40), ("fp16", 55)])
def test_bands_in_half_precision(precision, least):
    net = network(norm="iln")
    expected = NetworkRestorer(net, "reflect_min").pixels(PHOTO)
    within = NetworkRestorer(bounded(net, "500MB"), "reflect_min", precision=precision)
    assert psnr(within.pixels(PHOTO), expected) > least
    with pytest.raises(PrecisionOverflowError, match=rf"precision {precision}: activations overflow, so"):
        within.apply(torch.full((1, 3, 16, 16), 3e38))


def test_bands_need_one_precision():
    with pytest.raises(UserError, match=r"precision=fp16_safe: .* has forward hooks"):
        NetworkRestorer(bounded(network(), "500MB"), "reflect_min", precision="fp16_safe")


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_large_image_is_converted_in_parts(monkeypatch, depth):
    pixels = torch.randn(1, 3, 10, 7)
    whole = to_image(pixels, depth)
    monkeypatch.setattr("irformer.evaluation.restorers._CONVERTED", 3 * 7 * 4)
    assert np.array_equal(to_image(pixels, depth), whole)
    expected = (pixels[0].clamp(0, 1).double() * np.iinfo(depth).max).permute(1, 2, 0).numpy()
    assert np.abs(whole - expected).max() <= 0.51
    pixels[0, 1, 9, 3] = torch.nan
    with pytest.raises(UserError, match=r"1 of 210 values"):
        to_image(pixels, depth)
