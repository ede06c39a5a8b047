"""What records keep of the weights: known values on small networks."""

import numpy as np
import pytest
import torch

from irformer import create_model
from irformer.config.compose import compose
from irformer.config.image_sets import find_test_sets
from irformer.config.tasks import build_task
from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.restorers import NetworkRestorer
from irformer.experiments.analyses import final_norm, position_biases, precision
from irformer.imaging.images import read_image, write_image

TINY = {"embed_dim": 8, "depths": [1], "num_heads": [2]}


@pytest.fixture(scope="module")
def task():
    return build_task(compose("train", ["task=sr_x2"]).task)


@pytest.fixture(scope="module")
def images(tmp_path_factory, task):
    folder = tmp_path_factory.mktemp("images")
    photo = read_image(sample_photos(SAMPLE_VAL)[1])
    write_image(folder / "eye.png", photo[80:144, 100:180])
    return find_test_sets([str(folder)], folder, task)[0]


def network(norm: str):
    torch.manual_seed(0)
    return create_model("swinir_tiny", norm=norm, scale=2, overrides=TINY).eval()


def test_the_final_norm_is_paired_with_the_channels_that_it_reads(task, images):
    model = network("ln")
    with torch.no_grad():
        model.norm.bias.copy_(torch.arange(8.0))
    seen = []
    hook = model.norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    found = final_norm(model, task, images)
    hook.remove()
    assert found["bias"] == list(range(8))
    assert found["weight"] == [1.0] * 8
    assert found["magnitude"] == pytest.approx(seen[0].square().mean((0, 1, 2)).tolist(), rel=1e-3)
    assert not model.norm._forward_pre_hooks


def test_position_biases_are_pictures_of_each_head(task, images):
    model = network("iln")
    attention = next(module for module in model.modules() if hasattr(module, "relative_position_bias_table"))
    side = round(len(attention.relative_position_bias_table) ** 0.5)
    found = position_biases(model, task, images)
    assert np.shape(found["last"]) == (2, side, side)
    assert found["smoothness"] == pytest.approx(0, abs=0.2)  # untrained: white noise
    assert found["last"][1][0][2] == pytest.approx(attention.relative_position_bias_table[2, 1].item(), rel=1e-3)


@pytest.mark.parametrize("norm", ["ln", "iln"])
def test_low_precision_is_measured_as_in_the_benchmark(task, images, norm):
    model = network(norm)
    found = precision(model, task, images)
    exact = evaluate(NetworkRestorer(model, task.protocol.padding), images).metrics["psnr_y"]
    assert found["fp32"]["psnr"] == pytest.approx(exact)
    assert found["fp16"]["psnr"] == pytest.approx(exact, abs=0.05)
    assert found["int8"]["psnr"] != exact
    assert found["scaled"]["fp32"] == pytest.approx(exact, abs=0.01)  # the same images
    assert found["scaled"]["fp16"] < exact - 3  # out of range
    assert found["test_set"] == images.name
    assert "float16" in found["fp16"]["scheme"]
