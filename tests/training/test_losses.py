"""Losses against independent computations, and their use in a run."""

import csv
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import nn

from irformer.config.compose import compose, instantiate
from irformer.errors import UserError
from irformer.training.build import build_run
from irformer.training.losses import FFT, SSIM, Charbonnier, WeightedSum

TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "data=sample", "trainer=cpu", "logger=csv"]
SMALL = [*TINY, "batch_size=2", "patch_size=16", "trainer.max_steps=1", "trainer.log_every_n_steps=1", "callbacks.probe=null", "name=test"]


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    clean = rng.random((2, 3, 14, 17))
    restored = clean + rng.normal(0, 0.1, clean.shape)
    return torch.from_numpy(restored), torch.from_numpy(clean)


def test_charbonnier_has_its_eps_inside_the_root(images):
    restored, clean = images
    assert Charbonnier()(clean, clean).item() == pytest.approx(math.sqrt(1e-9), rel=1e-12)
    expected = np.sqrt((restored.numpy() - clean.numpy()) ** 2 + 1e-6).mean()
    assert Charbonnier(eps=1e-6)(restored, clean).item() == pytest.approx(expected, rel=1e-12)


def test_fft_is_the_l1_of_real_and_imaginary_parts(images):
    """The transform by its definition: a product with two matrices of roots of unity."""
    restored, clean = images
    rows, columns = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in restored.shape[2:])
    spectrum = rows @ (restored.numpy() - clean.numpy()) @ columns
    expected = (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2
    assert FFT()(restored, clean).item() == pytest.approx(expected, rel=1e-10)


def test_ssim_is_one_minus_the_similarity_with_an_eleven_pixel_gaussian(images):
    restored, clean = (image.numpy() for image in images)
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, window, axis=2, mode="mirror"), window, axis=3, mode="mirror")

    mu_a, mu_b = mean(restored), mean(clean)
    var_a, var_b = mean(restored**2) - mu_a**2, mean(clean**2) - mu_b**2
    covariance = mean(restored * clean) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    assert SSIM()(*images).item() == pytest.approx(1 - similarity.mean(), abs=1e-9)
    assert SSIM()(images[1], images[1]).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["l1", "mse", "charbonnier", "fft", "ssim", "l1_fft"])
def test_every_loss_of_the_group_falls_towards_the_clean_image(images, name):
    restored, clean = images
    loss = instantiate(compose("train", [f"loss={name}"]).loss)
    restored.requires_grad_()
    far = loss(restored, clean)
    (gradient,) = torch.autograd.grad(far, restored)
    assert loss(restored - 1e-3 * gradient / gradient.abs().max(), clean) < far
    assert loss(clean, clean).item() == pytest.approx(0, abs=1e-4)


def test_a_weighted_sum_is_composed_on_the_command_line(images):
    restored, clean = images
    ssim = "+loss.parts.ssim={weight: 0.2, loss: {_target_: irformer.training.losses.SSIM}}"
    loss = instantiate(compose("train", ["loss=l1_fft", "loss.parts.fft.weight=0.05", ssim]).loss)
    expected = nn.L1Loss()(restored, clean) + 0.05 * FFT()(restored, clean) + 0.2 * SSIM()(restored, clean)
    assert loss(restored, clean).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_term_without_its_weight_is_named():
    with pytest.raises(UserError, match=r"loss\.parts\.fft: expected weight and loss, found loss"):
        WeightedSum({"fft": {"loss": FFT()}})  # type: ignore[typeddict-item]
    with pytest.raises(UserError, match=r"loss\.parts: empty; expected at least one loss"):
        WeightedSum({})


def test_a_run_logs_the_terms_by_name_and_computes_them_in_float32(tmp_path):
    """The network runs in bfloat16, for which the CPU has no FFT: the loss gets float32, with autocast disabled."""
    run = build_run(compose("train", [*SMALL, "loss=l1_fft", "trainer.precision=bf16-mixed"]), tmp_path)
    seen = []
    run.module.loss.losses["l1"].register_forward_pre_hook(
        lambda _loss, images: seen.append(([image.dtype for image in images], torch.is_autocast_enabled("cpu")))
    )
    run.trainer.fit(run.module, run.data)
    assert seen == [([torch.float32, torch.float32], False)]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        logged = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    assert logged["train/loss"] == pytest.approx(logged["train/loss_l1"] + 0.1 * logged["train/loss_fft"], rel=1e-6)
