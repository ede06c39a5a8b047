"""The fast moments of the CPU and the closed form of the norms' backward pass, against plain operations in float64."""

from functools import partial

import pytest
import torch

from irformer.norms import ILN, BatchNorm, InstanceNorm, moments
from irformer.norms.moments import apply_moments, normalize, normalize_plainly

# Features [B, H, W, C] or, with the channels second, [B, C, H, W]: sizes that fold into many columns, and sizes that do not fold.
SHAPES = [(2, 8, 8, 60), (3, 48, 48, 12), (1, 5, 7, 9), (2, 16, 24, 180)]
AXES = {
    "image": [1, 2, 3],
    "channels last, instance": [1, 2],
    "channels last, batch": [0, 1, 2],
    "channels first, instance": [2, 3],
    "token": [3],
}


def _features(shape, offset=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    channels = 1 + torch.rand(shape[-1], generator=generator)
    return (torch.randn(shape, generator=generator) * channels + offset).to(dtype)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_equal_those_of_float64(shape, axes):
    x = _features(shape, offset=3.0)
    variance, mean = torch.var_mean(x.double(), axes, correction=0, keepdim=True)
    found = moments.moments(x, axes)
    torch.testing.assert_close(found.mean, mean.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.variance, variance.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centered", "mean of 100 deviations"])
@pytest.mark.parametrize("side", [8, 64, 256, 1024])
def test_a_normalized_image_is_as_exact_as_float32_allows(side, offset):
    """The error is relative to the largest value: x itself is rounded to 6e-6 deviations if its mean is 100 deviations."""
    x = _features((1, side, side, 12))
    x += offset * x.std()
    weight, bias = torch.ones(12), torch.zeros(12)
    expected, deviation = normalize_plainly(x.double(), weight.double(), bias.double(), 1e-4, [1, 2, 3])
    with torch.no_grad():
        found, found_deviation = normalize(x, weight, bias, 1e-4, [1, 2, 3])
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    torch.testing.assert_close(found_deviation.double(), deviation, rtol=1e-5, atol=0)


def test_one_image_can_be_normalized_in_bands():
    x = _features((1, 32, 32, 12))
    weight, bias = torch.rand(12), torch.rand(12)
    mean, variance = moments.moments(x, [1, 2, 3])
    parts = [moments.moments(band, [1, 2, 3]) for band in x.split(8, dim=1)]
    stacked = moments.Moments(*(torch.stack(values) for values in zip(*parts, strict=True)))
    merged = moments.merged(stacked, 0)
    torch.testing.assert_close(merged.mean[0], mean)
    torch.testing.assert_close(merged.variance[0], variance)
    whole = apply_moments(x, mean, variance.sqrt(), weight, bias)
    bands = [apply_moments(band, mean, variance.sqrt(), weight, bias) for band in x.split(8, dim=1)]
    torch.testing.assert_close(torch.cat(bands, 1), whole, rtol=0, atol=0)


def test_parts_of_unequal_size_count_by_their_size():
    x = _features((1, 32, 32, 12)) + torch.arange(32.0).view(1, -1, 1, 1)  # most of the variance is between the parts
    heights = [5, 8, 19]
    parts = [moments.moments(band, [1, 2]) for band in x.split(heights, dim=1)]
    stacked = moments.Moments(*(torch.stack(values).double() for values in zip(*parts, strict=True)))
    merged = moments.merged(stacked, 0, torch.tensor(heights, dtype=torch.float64).view(-1, 1, 1, 1, 1))
    variance, mean = torch.var_mean(x.double(), [1, 2], correction=0, keepdim=True)
    torch.testing.assert_close(merged.mean[0], mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merged.variance[0], variance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axes", [[1, 2, 3], [1, 2], [0, 1, 2]], ids=["image", "instance", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_closed_form_equals_the_gradient_of_plain_operations(shape, axes):
    x = _features(shape, offset=2.0, dtype=torch.float64).requires_grad_()
    weight = torch.rand(shape[-1], dtype=torch.float64, requires_grad=True)
    bias = torch.rand(shape[-1], dtype=torch.float64, requires_grad=True)
    outputs = [f(x, weight, bias, 1e-4, axes) for f in (normalize, normalize_plainly)]
    gradients = [torch.randn_like(value) for value in outputs[0]]
    found, expected = (torch.autograd.grad(output, (x, weight, bias), gradients) for output in outputs)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels_first", [False, True], ids=["channels last", "channels first"])
def test_gradcheck(channels_first, monkeypatch):
    monkeypatch.setattr(moments, "_COLUMNS", 8)  # a small matrix folds too
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64)
    x = (x.movedim(-1, 1).contiguous() if channels_first else x).requires_grad_()
    shape = (3, 1, 1) if channels_first else (3,)
    weight, bias = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *values: normalize(*values, 1e-4, [1, 2, 3]), (x, weight, bias))
    assert torch.autograd.gradcheck(lambda value: tuple(moments.moments(value, [1, 2, 3])), (x,))


def test_a_second_derivative_is_refused():
    """The closed form would silently give a wrong one."""
    x = torch.randn(1, 8, 8, 4, requires_grad=True)
    y, _ = normalize(x, torch.ones(4), torch.zeros(4), 1e-4, [1, 2, 3])
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("norm", [ILN, InstanceNorm, partial(BatchNorm, running=False)], ids=["image", "instance", "batch"])
def test_the_memory_format_changes_neither_the_result_nor_its_gradient(norm):
    layer = norm(60, channels_first=True)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = _features((2, 60, 16, 24)).contiguous(memory_format=memory_format).requires_grad_()
        y, scale = layer(x)
        assert y.is_contiguous(memory_format=memory_format)
        loss = (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() + (0 if scale is None else scale.sum())
        found.append((y, scale, *torch.autograd.grad(loss, (x, layer.weight, layer.bias))))
    for first, last in zip(*found, strict=True):
        torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-4)
