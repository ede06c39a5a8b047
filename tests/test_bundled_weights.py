"""The weights in the package: what they restore, what their files say, and that the published numbers are theirs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import irformer
from irformer.commands import weights_page
from irformer.config.compose import compose, instantiate
from irformer.core.files import sha256
from irformer.data.test_sets import available_test_sets
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.results import read_records
from irformer.imaging.images import read_image, write_image
from irformer.imaging.resize import imresize
from irformer.metrics import psnr
from irformer.weights.bundled import bundled_file, bundled_names, made_file
from irformer.weights.checkpoints import load_checkpoint, transfer_weights

DOCS = Path(__file__).parent.parent / "docs"
NAMES = [f"swinir_tiny_{norm}_{task}" for norm in ("iln", "ln") for task in ("denoise_color_25", "x2")]
RECORDS = {record.checkpoint: record for file in (DOCS / weights_page.RESULTS).glob("*/results.json") for record in read_records(file)}


def test_the_package_has_the_four_networks():
    assert bundled_names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_and_has_a_card_with_its_numbers(name):
    file = bundled_file(name)
    assert file is not None
    assert file.stat().st_size < 1.5e6
    card = (file.parent / "README.md").read_text(encoding="utf-8")
    assert 'license: "apache-2.0"' in card
    assert "Trained on bsds400 for 20,000 steps" in card
    assert "python train.py experiment=swinir_tiny_" in card
    for result in RECORDS[name].test_sets.values():
        assert f"| {result.name} | {result.images} | {result.metrics[next(iter(result.metrics))]:.2f} / " in card


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_of_the_files(name):
    file = bundled_file(name)
    assert file is not None
    assert RECORDS[name].further["sha256"] == sha256(file)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("x2")])
def test_super_resolution_of_set5_is_what_the_page_says(name, data_root):
    task = instantiate(compose("benchmark", ["task=sr_x2", "checkpoint=none"]).task)
    (test_set,) = available_test_sets(["Set5"], data_root, task)
    restorer = NetworkRestorer(load_checkpoint(name).network, task.protocol.padding)
    found = evaluate(restorer, test_set).metrics
    published = RECORDS[name].test_sets["Set5"].metrics
    assert found["psnr_y"] == pytest.approx(published["psnr_y"], abs=1e-3)
    assert found["ssim_y"] == pytest.approx(published["ssim_y"], abs=1e-5)
    assert found["psnr_y"] > 37.2


@pytest.mark.parametrize("norm", ["ln", "iln"])
def test_a_noisy_photo_is_restored(norm):
    """Every rule of the denoising protocol is tested elsewhere; this is the network."""
    photo = data.coffee()[150:246, 250:378]
    noisy = photo + np.random.default_rng(0).normal(scale=25, size=photo.shape)
    lq = torch.from_numpy(noisy.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        restored = irformer.load_network(f"swinir_tiny_{norm}_denoise_color_25")(lq)
    found = (restored[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    assert 10 * np.log10(255**2 / ((found.astype(float) - photo) ** 2).mean()) > 29


def test_restore_takes_them_by_default(tmp_path):
    photo = data.coffee()[150:246, 250:378]
    small = imresize(photo, 48, 64)
    write_image(tmp_path / "photo.png", small)
    script = DOCS.parent / "scripts" / "restore.py"
    done = subprocess.run([sys.executable, script, "photo.png", "restored.png"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "1 image restored x2: restored.png\n")
    restored, enlarged = read_image(tmp_path / "restored.png"), imresize(small, 96, 128)
    assert psnr(restored, photo) > psnr(enlarged, photo) + 1


def test_a_training_starts_from_them():
    network = irformer.create_model("swinir_tiny", "iln", 2)
    assert transfer_weights(network, Path("swinir_tiny_iln_x2")).initialized == {}
    expected = irformer.load_network("swinir_tiny_iln_x2").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("x2")])
def test_bands_give_the_result_of_the_whole_image(name):
    """With the weights of a trained network, whose features are less even than random ones."""
    network = irformer.load_network(name)
    lq = torch.from_numpy(data.astronaut()[:200, :120].astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(lq)
    found = irformer.bounded(network, "90MB")(lq)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(UserError) as caught:
        irformer.load_network("swinir_tiny_iln_x3")
    assert str(caught.value) == (
        "swinir_tiny_iln_x3: no such file; expected a run's folder, a weights file (.safetensors, .pth, .pt, .ckpt), or the name of "
        f"weights in the package: {', '.join(sorted(NAMES))}; did you mean swinir_tiny_iln_x2?"
    )


def test_files_made_of_them_are_not_written_into_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = bundled_file("swinir_tiny_iln_x2")
    assert file is not None
    assert made_file(file, ".onnx") == tmp_path / "irformer" / "swinir_tiny_iln_x2.onnx"
    assert made_file(tmp_path / "model.safetensors", ".onnx") == tmp_path / "model.safetensors.onnx"


def test_the_page_is_up_to_date():
    assert weights_page.weights_page(DOCS) == (DOCS / "results" / "weights.md").read_text(encoding="utf-8"), "run make tables"


def test_the_records_hold_no_path_of_a_machine():
    assert set(RECORDS) == {*NAMES, "bicubic", "degraded"}
