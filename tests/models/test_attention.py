"""Attention by matrix products, which the CPU takes, against scaled_dot_product_attention: values, gradients, masks and padded heads."""

import pytest
import torch

from irformer.models import attention
from irformer.models.attention import Borders, attend
from irformer.models.windows import shifted_window_masks

ROWS, COLUMNS, IMAGES = 3, 4, 2


def _values(masked: bool, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Queries, keys, values and bias; without masks, keys and values have more tokens than queries, as in HAT."""
    torch.manual_seed(0)
    windows, heads, n, size = IMAGES * ROWS * COLUMNS, 2, 4, 3
    m = n if masked else 6
    shapes = (windows, n, heads, size), (windows, m, heads, size), (windows, m, heads, size), (heads, n, m)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def _borders(masked: bool) -> Borders | None:
    return Borders(ROWS, COLUMNS, shifted_window_masks(2, 1)) if masked else None


@pytest.mark.parametrize("masked", [True, False], ids=["shifted", "overlapping"])
@pytest.mark.parametrize("windows_at_a_time", [1, 2, 3, 5, 7, 12, 100])
def test_products_equal_pytorch_attention_and_its_gradients(masked, windows_at_a_time, monkeypatch):
    values = _values(masked)
    monkeypatch.setattr(attention, "_SCORES", windows_at_a_time * values[-1][0].numel())
    found, expected = attend(*values, _borders(masked)), attention._attend_fused(*values, _borders(masked))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(attend(*values, _borders(masked)), expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(found)
    pairs = zip(torch.autograd.grad(found, values, gradient), torch.autograd.grad(expected, values, gradient), strict=True)
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("masked", [True, False], ids=["shifted", "overlapping"])
def test_gradcheck(masked):
    values = _values(masked)
    assert torch.autograd.gradcheck(lambda *tensors: attend(*tensors, _borders(masked)), values)


@pytest.mark.parametrize("gradient", [True, False])
def test_masked_pairs_leave_no_subnormal_numbers(gradient, monkeypatch):
    """They take many times as long as other numbers on some processors, and e^-100 is one in float32."""
    q, k, v, bias = _values(masked=True, dtype=torch.float32)
    borders = _borders(masked=True)
    kept = []
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda scores, axis, out: kept.append(out) or softmax(scores, axis, out=out))
    with torch.set_grad_enabled(gradient):
        found = attend(q, k, v, bias, borders)
    probabilities = torch.cat([values.flatten() for values in kept])
    assert (probabilities == 0).any()
    assert not ((probabilities > 0) & (probabilities < torch.finfo(torch.float32).tiny)).any()
    monkeypatch.undo()
    torch.testing.assert_close(found, attention._attend_fused(q, k, v, bias, borders))


def test_the_bias_of_pairs_equals_indexing_and_so_does_its_gradient():
    table = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(0))
    found, expected = attention.bias_of_pairs(table, index), table[index].permute(2, 0, 1)
    assert torch.equal(found, expected)
    gradient = torch.randn_like(found)
    (ours,), (plain,) = torch.autograd.grad(found, table, gradient), torch.autograd.grad(expected, table, gradient)
    torch.testing.assert_close(ours, plain)


def test_heads_padded_for_cuda_give_the_same_attention():
    q, k, v, bias = _values(masked=False)
    plain = attention.scaled_dot_product(q, k, v, bias)
    padded = attention.scaled_dot_product(q, k, v, bias, head_multiple=8)
    assert padded.shape == plain.shape
    torch.testing.assert_close(padded, plain)


def test_other_dtypes_take_pytorch_attention():
    values = [value.detach().bfloat16() for value in _values(masked=True)]
    found = attend(*values, _borders(masked=True))
    assert found.dtype == torch.bfloat16
    expected = attend(*(value.double() for value in values), _borders(masked=True))
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)
