"""Norms: what each computes, its precision, and the properties of residual blocks."""

import copy
import doctest
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import irformer.norms.layers
from irformer.norms import (
    ILN,
    Affine,
    BatchNorm,
    BiasFreeLayerNorm,
    DynamicTanh,
    ILNWithoutRescale,
    InstanceNorm,
    LayerNorm,
    LayerNormRescale,
    LayerScale,
    NoNorm,
    NormScheme,
    Residual,
    ReZero,
    RMSNorm,
)

NORMS = {
    "ln": LayerNorm,
    "iln": ILN,
    "iln_norescale": ILNWithoutRescale,
    "ln_rescale": LayerNormRescale,
    "ln_biasfree": BiasFreeLayerNorm,
    "rms": RMSNorm,
    "instance": InstanceNorm,
    "batch": partial(BatchNorm, running=False),
    "batch_eval": partial(BatchNorm, running=True),
    "dyt": DynamicTanh,
    "layerscale": LayerScale,
    "rezero": ReZero,
    "none": NoNorm,
    "affine": Affine,
}
every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())


def _features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 3 + 1.5).to(dtype)


def _perturbed(module: nn.Module) -> nn.Module:
    """Add random values to all parameters, so that nothing is compared at its trivial initialization."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return module


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
    # In half precision, only the rounding of the result to its dtype may differ.
    rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), reference, rtol=1e-5 + rounding, atol=1e-5)


def _reference(name: str, x: np.ndarray, p: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """The papers' formulas for x [B, H, W, C] with parameters p; eps is 1e-5 for a token or channel, 1e-4 for an image."""
    weight, bias = p.get("weight"), p.get("bias")

    def standard(axes: tuple[int, ...], eps: float) -> np.ndarray:
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * weight + bias

    sigma = np.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-4)
    return {
        "ln": lambda: (standard((3,), 1e-5), None),
        "iln": lambda: (standard((1, 2, 3), 1e-4), sigma),
        "iln_norescale": lambda: (standard((1, 2, 3), 1e-4), None),
        "ln_rescale": lambda: (standard((3,), 1e-5), sigma),
        "ln_biasfree": lambda: (x / np.sqrt(x.var(3, keepdims=True) + 1e-5) * weight, None),
        "rms": lambda: (x / np.sqrt((x**2).mean(3, keepdims=True) + 1e-5) * weight, None),
        "instance": lambda: (standard((1, 2), 1e-5), None),
        "batch": lambda: (standard((0, 1, 2), 1e-5), None),
        "batch_eval": lambda: (standard((0, 1, 2), 1e-5), None),
        "dyt": lambda: (np.tanh(p["alpha"] * x) * weight + bias, None),
        "layerscale": lambda: (standard((3,), 1e-5), p["gamma"]),
        "rezero": lambda: (x, p["alpha"]),
        "none": lambda: (x, None),
        "affine": lambda: (x * weight + bias, None),
    }[name]()


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_equals_its_formula(name):
    norm = _perturbed(NORMS[name](6)).double()
    x = _features(3, 5, 7, 6, dtype=torch.float64)
    parameters = {key: value.detach().numpy() for key, value in norm.named_parameters()}
    expected_y, expected_scale = _reference(name, x.numpy(), parameters)
    y, scale = norm(x)
    torch.testing.assert_close(y, torch.from_numpy(expected_y), rtol=1e-12, atol=1e-12)
    if expected_scale is None:
        assert scale is None
    else:
        torch.testing.assert_close(scale, torch.from_numpy(expected_scale), rtol=1e-12, atol=0)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("norm", "reference"),
    [
        (InstanceNorm(6, channels_first=True), nn.InstanceNorm2d(6, affine=True)),
        (BatchNorm(6, running=True, channels_first=True), nn.BatchNorm2d(6)),
        (RMSNorm(6), nn.RMSNorm(6, eps=1e-5)),
        (LayerNorm(6), nn.LayerNorm(6)),
    ],
    ids=["instance", "batch", "rms", "ln"],
)
def test_equals_the_module_of_torch(norm, reference, training):
    reference = _perturbed(copy.deepcopy(reference)).train(training)
    norm = copy.deepcopy(norm).train(training)
    norm.load_state_dict(reference.state_dict(), strict=False)
    x = _features(4, 6, 5, 6)
    for step in range(3):
        torch.testing.assert_close(norm(x + step)[0], reference(x + step))
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, reference.get_buffer(name))


def test_batch_norm_can_be_evaluated_both_ways_from_one_training():
    """With the dagger in Table 1: batch statistics in evaluation mode; without it, running ones. Checkpoints fit both."""
    trained = _perturbed(BatchNorm(6, running=False))
    for seed in range(3):
        trained(_features(2, 5, 7, 6, seed=seed))
    state = copy.deepcopy(trained.state_dict())
    assert set(state) == {"weight", "bias", "running_mean", "running_var"}
    x = 2 * _features(2, 5, 7, 6, seed=9)
    own, running = (BatchNorm(6, running=choice) for choice in (False, True))
    for norm in (own, running):
        norm.load_state_dict(state)
        norm.eval()

    torch.testing.assert_close(own(x)[0], trained.train()(x)[0])
    normalized = (x - state["running_mean"]) / torch.sqrt(state["running_var"] + 1e-5)
    torch.testing.assert_close(running(x)[0], normalized * state["weight"] + state["bias"])
    assert not torch.allclose(own(x)[0], running(x)[0], rtol=0.1)


def test_evaluation_leaves_the_running_statistics_alone():
    for running in (False, True):
        norm = BatchNorm(6, running=running).eval()
        norm(_features(2, 5, 7, 6))
        assert norm.running_mean.eq(0).all()
        assert norm.running_var.eq(1).all()


def test_the_ablation_has_four_corners_of_two_switches():
    """Statistics of the token or of the image, with or without rescaling: each pair shares y or the scale, to the last bit."""
    x = _features(2, 7, 9, 6)
    y_iln, sigma = ILN(6)(x)
    y_ln, no_scale = LayerNorm(6)(x)
    for norm, y_expected, scale_expected in [(ILNWithoutRescale, y_iln, no_scale), (LayerNormRescale, y_ln, sigma)]:
        y, scale = norm(6)(x)
        assert y.equal(y_expected)
        assert scale is scale_expected is None or scale.equal(scale_expected)


def test_bias_free_norm_keeps_the_mean_in():
    x = _features(1, 4, 4, 6)
    y, _ = BiasFreeLayerNorm(6, eps=0.0)(x)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(1, 4, 4))
    torch.testing.assert_close(y.mean(-1), x.mean(-1) / x.std(-1, correction=0))


def test_rezero_block_is_the_identity_at_the_start_and_learns_its_scale():
    x = _features(2, 5, 7, 6)
    block = Residual(ReZero(6), _branch(6, torch.float32))
    assert block(x).equal(x)
    block(x).square().sum().backward()
    assert block.norm.alpha.grad.abs() > 0
    assert all(parameter.grad.eq(0).all() for parameter in block.branch.parameters())


@pytest.mark.parametrize("initial", [0.1, 1e-5])
def test_layerscale_block_starts_at_the_identity_up_to_its_vector(initial):
    x = _features(2, 5, 7, 6, dtype=torch.float64)
    norm = LayerScale(6, initial=initial).double()
    branch = _branch(6)
    torch.testing.assert_close(Residual(norm, branch)(x) - x, initial * branch(LayerNorm(6).double()(x)[0]), rtol=1e-6, atol=1e-12)


@every_norm
def test_channels_first_is_the_same_norm_on_another_layout(norm):
    x = _features(2, 5, 7, 6)
    last, first = (_perturbed(norm(6, channels_first=layout)) for layout in (False, True))
    for training in (True, False):
        y, scale = last.train(training)(x)
        y_first, scale_first = first.train(training)(x.permute(0, 3, 1, 2))
        torch.testing.assert_close(y_first.permute(0, 2, 3, 1), y)
        if scale is not None:
            ones = torch.ones_like(x)
            torch.testing.assert_close((scale_first * ones.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), scale * ones)
    for buffer, buffer_first in zip(last.buffers(), first.buffers(), strict=True):
        torch.testing.assert_close(buffer_first, buffer)


def test_images_of_a_batch_do_not_touch_each_other():
    x = _features(2, 8, 8, 6)
    x[1] *= 40
    y, sigma = ILN(6)(x)
    y0, sigma0 = ILN(6)(x[:1])
    torch.testing.assert_close(y[:1], y0)
    torch.testing.assert_close(sigma[:1], sigma0)
    assert sigma.shape == (2, 1, 1, 1)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@every_norm
def test_gradients_flow_through_statistics_and_parameters(norm, training):
    x = _features(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    block = _perturbed(Residual(norm(5).double(), _branch(5))).train(training)
    names = [name for name, _ in block.norm.named_parameters()]

    def apply(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, {f"norm.{name}": p for name, p in zip(names, parameters, strict=True)}, (x,))

    assert torch.autograd.gradcheck(apply, (x, *(p.detach().requires_grad_() for p in block.norm.parameters())))


def test_a_flat_image_passes_the_block_almost_unchanged():
    x = torch.full((1, 8, 8, 6), 3.0)
    block = Residual(ILN(6), _branch(6, torch.float32))
    assert (block(x) - x).abs().max() < 0.02  # sigma is sqrt(eps) = 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_norm
def test_half_precision_stream_keeps_its_type(norm, dtype):
    x = _features(1, 8, 8, 6, dtype=dtype)
    block = Residual(norm(6), _branch(6)).to(dtype)
    assert block.norm(x)[0].dtype == dtype
    assert block(x).dtype == dtype


@pytest.mark.parametrize("name", [name for name in NORMS if name != "affine"])
def test_float32_parameters_read_a_half_precision_stream_to_its_rounding(name):
    """As under autocast: with float32 statistics only y is rounded, even if squares overflow float16 (above 256)."""
    x = (200 * _features(2, 8, 8, 6)).half()
    norm = _perturbed(NORMS[name](6))
    y, scale = norm(x)
    expected_y, expected_scale = norm(x.float())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), expected_y, rtol=1e-3, atol=1e-3)
    if scale is not None:
        assert scale.dtype == torch.float32
        torch.testing.assert_close(scale, expected_scale)


@every_norm
def test_block_can_be_copied_after_a_training_step(norm):
    """The official module stores its variance between norm and denorm, so deep copies fail; ours stores nothing."""
    block = Residual(norm(6), _branch(6, torch.float32))
    block(_features(1, 4, 4, 6)).sum().backward()
    twin = copy.deepcopy(block)
    torch.testing.assert_close(twin(_features(1, 4, 4, 6)), block(_features(1, 4, 4, 6)))


@every_norm
def test_block_compiles_without_graph_breaks(norm):
    torch._dynamo.reset()
    block = _perturbed(Residual(norm(6), _branch(6, torch.float32)))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = _features(1, 4, 4, 6)
    torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.parametrize(("ends", "expected"), [("same", ILN), ("ln", LayerNorm), ("affine", Affine), ("none", NoNorm)])
def test_the_ends_are_a_switch_of_their_own(ends, expected):
    assert type(NormScheme("iln", ILN, ends=ends).end(8)) is expected


def test_unknown_ends_are_refused():
    with pytest.raises(ValueError, match=r"norm\.ends=layer: expected same, ln, affine or none"):
        NormScheme("iln", ILN, ends="layer")  # type: ignore[arg-type]


def test_docstring_examples_run():
    assert doctest.testmod(irformer.norms.layers).failed == 0
