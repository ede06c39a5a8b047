"""What exported graphs compute instead of PyTorch's operators: the same results, in a form for every size and runtime."""

import pytest
import torch
import torch.nn.functional as F

from irformer.graphs.rewrites import REWRITES
from irformer.models.any_size import attend_in_graph, pad_by_index
from irformer.models.attention import Borders, attend
from irformer.models.blocks import pad_to_multiple
from irformer.models.windows import shifted_window_masks

aten = torch.ops.aten


@pytest.mark.parametrize("multiple", [1, 7, 8])
def test_padding_by_index_is_padding(multiple):
    for height in range(1, 18):
        for width in (1, 3, 8, 9, 16, 17):
            x = torch.rand(2, 3, height, width)
            assert torch.equal(pad_by_index(x, multiple), pad_to_multiple(x, multiple))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize("shift", [0, 2])
def test_attention_in_a_graph_is_attention(rows, columns, shift):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2 * rows * columns, 16, 2, 5).unbind(0)
    bias = torch.randn(2, 16, 16)
    borders = Borders(rows, columns, shifted_window_masks(4, shift)) if shift else None
    with torch.no_grad():
        expected = attend(q, k, v, bias, borders)
    torch.testing.assert_close(attend_in_graph(q, k, v, bias, borders), expected)


CALLS = {
    "mean": (aten.mean.dim, ((1, 3),), {}),
    "mean kept": (aten.mean.dim, ((-1, 1), True), {}),
    "variance": (aten.var_mean.correction, ((0, 2, 3),), {"correction": 0, "keepdim": True}),
    "variance of all": (aten.var_mean.correction, (None,), {"correction": 0}),
    "norm": (aten.linalg_vector_norm.default, (2.0, (-1,), True), {}),
    "pixel unshuffle": (aten.pixel_unshuffle.default, (2,), {}),
    "overlapping windows": (aten.unfold.default, (2, 6, 4), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_rewritten_operator_gives_the_same(name):
    operator, arguments, named = CALLS[name]
    x = torch.randn(2, 4, 14, 10) + 3
    torch.testing.assert_close(REWRITES[operator](x, *arguments, **named), operator(x, *arguments, **named))


def test_a_multiply_add_is_the_same_with_any_factor():
    x, a, b = torch.randn(3, 5, 7)
    for value in (1, -1, 0.5):
        found = REWRITES[aten.addcmul.default](x, a, b, value=value)
        torch.testing.assert_close(found, torch.addcmul(x, a, b, value=value))


@pytest.mark.parametrize("operator", [aten.softmax.int, aten.layer_norm.default, aten.mean.dim])
def test_float32_operators_without_long_sums_are_kept(operator):
    arguments = {aten.softmax.int: (-1,), aten.layer_norm.default: ((8,),), aten.mean.dim: ((2,),)}[operator]
    assert REWRITES[operator](torch.randn(2, 4, 8), *arguments) is NotImplemented


def test_float16_statistics_are_computed_in_float32():
    """The sum of these values, and their squares, are beyond the range of float16."""
    x = torch.full((1, 4, 64, 64), 300.0, dtype=torch.half)
    assert REWRITES[aten.mean.dim](x, (1, 2, 3)).item() == 300
    values = torch.randn(3, 8).half()
    assert torch.equal(REWRITES[aten.softmax.int](values, -1), values.float().softmax(-1).half())
    weight, bias = torch.rand(2, 8).half()
    expected = F.layer_norm(values.float(), (8,), weight.float(), bias.float()).half()
    assert torch.equal(REWRITES[aten.layer_norm.default](values, (8,), weight, bias), expected)


def test_a_mean_in_stages_is_precise():
    """Summing ten million equal values one by one in float32 would be wrong in the third digit."""
    x = torch.full((1, 1, 2048, 4096), 0.1)
    variance, mean = REWRITES[aten.var_mean.correction](x, (2, 3), correction=0)
    assert mean.item() == pytest.approx(0.1, rel=1e-6)
    assert variance.item() < 1e-12
