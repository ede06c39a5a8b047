"""MS-SSIM, LPIPS, DISTS, SSIMULACRA2 and FLIP: their direction and values, and what happens where weights or packages are missing."""

import pickle
import sys

import numpy as np
import pytest
import torch
import torchvision
from conftest import picture
from omegaconf import OmegaConf
from test_benchmark_command import measure, place, save, strictly  # noqa: F401

from irformer.config.metrics import build_metrics
from irformer.errors import UserError
from irformer.metrics import DISTS, FLIP, LPIPS, MSSSIM, SSIMULACRA2, MetricUnavailableError, ssim

ALEX, VGG = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"


def noisy(image, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def folder_of_weights(tmp_path_factory):
    """Untrained networks in files with the names that torchvision gives to the trained ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet().state_dict(), folder / ALEX)
    return folder


def test_ms_ssim_is_1_for_equal_images_and_falls_with_noise():
    image = picture(180, 190)
    values = [MSSSIM()(noisy(image, sigma), image) for sigma in (0, 5, 20)]
    assert values[0] == pytest.approx(1)
    assert 1 > values[1] > values[2] > ssim(noisy(image, 20), image), "coarse scales see less of the noise"
    assert MSSSIM()(image[..., :1], image[..., :1]) == pytest.approx(1)


@pytest.mark.parametrize("metric", [SSIMULACRA2, FLIP], ids=lambda metric: metric.__name__)
def test_metrics_of_packages_follow_their_direction(metric):
    pytest.importorskip("ssimulacra2" if metric is SSIMULACRA2 else "flip_evaluator")
    built = pickle.loads(pickle.dumps(metric()))
    image = picture(64, 72)
    values = [built(noisy(image, sigma), image) for sigma in (0, 4, 16)]
    assert values[0] == pytest.approx(100 if metric is SSIMULACRA2 else 0, abs=1e-4)
    assert values == sorted(values, reverse=built.higher_is_better)
    assert len(set(values)) == 3


def test_lpips_uses_the_weights_of_a_folder(folder_of_weights):
    hub = torch.hub.get_dir()
    metric = pickle.loads(pickle.dumps(LPIPS(weights=str(folder_of_weights))))
    assert torch.hub.get_dir() == hub
    image = picture(64, 72)
    values = [metric(noisy(image, sigma), image) for sigma in (0, 4, 16)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]
    assert metric(noisy(image, 4), image) == values[1], "images do not affect each other"


@pytest.mark.slow
def test_dists_uses_the_weights_of_a_folder(tmp_path):
    """VGG16 has half a gigabyte of weights."""
    torch.save(torchvision.models.vgg16().state_dict(), tmp_path / VGG)
    metric = DISTS(weights=str(tmp_path))
    image = picture(64, 72)
    assert metric(image, image) == pytest.approx(0, abs=1e-5)
    assert metric(noisy(image, 16), image) > 1e-4


@pytest.mark.parametrize(("metric", "file"), [(LPIPS, ALEX), (DISTS, VGG)], ids=["lpips", "dists"])
def test_a_missing_weights_file_is_named_with_a_remedy(tmp_path, metric, file):
    with pytest.raises(MetricUnavailableError) as error:
        metric(weights=str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path / file} is missing: download it from https://")
    assert str(error.value).endswith("or name the folder that contains it by metrics.weights=FOLDER")


def test_a_weights_file_cannot_run_code(tmp_path, attempts):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"x": Code()}, tmp_path / ALEX)
    with pytest.raises(UserError, match=f"{ALEX}: cannot be read"):
        LPIPS(weights=str(tmp_path))
    assert not (tmp_path / "written").exists()
    attempts.refused("weights files")


def test_a_missing_package_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    with pytest.raises(MetricUnavailableError, match=r"flip-evaluator is not installed: pip install 'irformer\[metrics\]'"):
        FLIP()


def test_a_benchmark_goes_on_without_the_column(measure, place, tmp_path, caplog, attempts):  # noqa: F811
    """One line says what is missing; with the folder of the weights, the column is there."""
    measure("checkpoint=bicubic", "+metrics=[lpips,mae]", f"+metrics.weights={tmp_path}", "out=without")
    assert sum("lpips is left out: " in message for message in caplog.messages) == 1
    assert list(strictly(place / "without" / "results.json")["metrics"]) == ["psnr_y", "ssim_y", "mae"]
    attempts.handled("benchmark")


def test_the_folder_of_weights_does_not_change_the_results(measure, place, folder_of_weights):  # noqa: F811
    from irformer.imaging.images import write_image

    write_image(place / "one" / "one.png", picture(80, 80))
    output = measure("checkpoint=bicubic", "+metrics=[lpips]", f"+metrics.weights={folder_of_weights}", "out=with")
    assert "psnr_y / ssim_y / lpips" in output
    record = strictly(place / "with" / "results.json")
    assert record["metrics"]["lpips"] == {"higher_is_better": False, "digits": 4, "unit": ""}
    assert "weights" not in record["extra_metrics"]["lpips"]


def test_text_in_place_of_a_metric_is_refused():
    with pytest.raises(UserError, match=r"metrics\.edge=foo: expected a _target_ class and its arguments"):
        build_metrics(OmegaConf.create({"edge": "foo"}), 3)
