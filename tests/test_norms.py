"""Facts of the norms: what i-LN computes, to which precision, and what its residual block keeps."""

import copy
import doctest

import numpy as np
import pytest
import torch
from torch import nn

import irformer.norms
from irformer.norms import ILN, Affine, LayerNorm, NormScheme, Residual


def _features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 3 + 1.5).to(dtype)


def _branch(dim: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)).to(dtype)


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.01, 2.0), (250.0, -40.0)])
def test_iln_block_is_equivariant_to_scale_and_shift(a, b):
    """B(a x + b) = a B(x) + b as eps goes to 0 (arXiv 2504.06629): the property that LayerNorm blocks lack."""
    x = _features(2, 7, 9, 12, dtype=torch.float64)
    block = Residual(ILN(12, eps=0.0).double(), _branch(12))
    torch.testing.assert_close(block(a * x + b), a * block(x) + b, rtol=1e-10, atol=1e-10 * a)

    ln_block = Residual(LayerNorm(12, eps=0.0).double(), _branch(12))
    assert not torch.allclose(ln_block(a * x + b), a * ln_block(x) + b, rtol=1e-3)


def test_iln_keeps_differences_between_tokens_up_to_one_factor():
    """LN*(x_l) - LN*(x_k) = (x_l - x_k) / sigma (Prop. 2), which per-token LayerNorm does not satisfy."""
    x = _features(1, 6, 6, 8, dtype=torch.float64)
    y, sigma = ILN(8, eps=1e-4).double()(x)
    differences = (y[:, 1:] - y[:, :-1]) * sigma
    torch.testing.assert_close(differences, x[:, 1:] - x[:, :-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("side", [8, 64, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_iln_equals_float64_reference(side, dtype):
    x = _features(1, side, side, 60, dtype=dtype)
    values = x.double().numpy()
    sigma_reference = np.sqrt(values.var() + 1e-4)
    reference = torch.from_numpy((values - values.mean()) / sigma_reference)

    y, sigma = ILN(60)(x)

    assert sigma.dtype == torch.float32
    assert sigma.item() == pytest.approx(sigma_reference, rel=1e-5)
    assert y.dtype == dtype
    # In half precision nothing but the rounding of the result to its own type may differ.
    rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), reference, rtol=1e-5 + rounding, atol=1e-5)


@pytest.mark.parametrize("norm", [LayerNorm, ILN, Affine])
def test_channels_first_is_the_same_norm_on_another_layout(norm):
    x = _features(2, 5, 7, 6)
    last, first = norm(6), norm(6, channels_first=True)
    for module in (last, first):
        with torch.no_grad():
            module.weight.copy_(torch.linspace(0.5, 2, 6))
            module.bias.copy_(torch.linspace(-1, 1, 6))
    y, scale = last(x)
    y_first, scale_first = first(x.permute(0, 3, 1, 2))
    torch.testing.assert_close(y_first.permute(0, 2, 3, 1), y)
    if scale is not None:
        torch.testing.assert_close(scale_first, scale)


def test_images_of_a_batch_do_not_touch_each_other():
    x = _features(2, 8, 8, 6)
    x[1] *= 40
    y, sigma = ILN(6)(x)
    y0, sigma0 = ILN(6)(x[:1])
    torch.testing.assert_close(y[:1], y0)
    torch.testing.assert_close(sigma[:1], sigma0)
    assert sigma.shape == (2, 1, 1, 1)


def test_gradients_flow_through_the_statistics():
    x = _features(1, 3, 4, 5, dtype=torch.float64).requires_grad_()
    block = Residual(ILN(5).double(), _branch(5))
    assert torch.autograd.gradcheck(block, (x,))


def test_a_flat_image_passes_the_block_almost_unchanged():
    x = torch.full((1, 8, 8, 6), 3.0)
    block = Residual(ILN(6), _branch(6, torch.float32))
    assert (block(x) - x).abs().max() < 0.02  # sigma is sqrt(eps) = 0.01


def test_half_precision_stream_keeps_its_type():
    x = _features(1, 8, 8, 6, dtype=torch.bfloat16)
    assert Residual(ILN(6), _branch(6, torch.bfloat16)).bfloat16()(x).dtype == torch.bfloat16


def test_block_can_be_copied_after_a_training_step():
    """The official module keeps its variance between norm and denorm, so that a deep copy fails on the graph; this one does not."""
    block = Residual(ILN(6), _branch(6, torch.float32))
    block(_features(1, 4, 4, 6)).sum().backward()
    twin = copy.deepcopy(block)
    torch.testing.assert_close(twin(_features(1, 4, 4, 6)), block(_features(1, 4, 4, 6)))


def test_block_compiles_without_graph_breaks():
    block = Residual(ILN(6), _branch(6, torch.float32))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = _features(1, 4, 4, 6)
    torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.parametrize(("ends", "expected"), [("same", ILN), ("ln", LayerNorm), ("affine", Affine)])
def test_the_ends_are_a_switch_of_their_own(ends, expected):
    assert type(NormScheme("iln", ILN, ends=ends).end(8)) is expected


def test_unknown_ends_are_refused():
    with pytest.raises(ValueError, match=r"norm\.ends=layer: expected same, ln or affine"):
        NormScheme("iln", ILN, ends="layer")  # type: ignore[arg-type]


def test_docstring_examples_run():
    assert doctest.testmod(irformer.norms).failed == 0
