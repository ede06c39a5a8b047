"""scripts/benchmark.py precision=NAME: in the table, the record and the protocol; non-finite values are counted, never dropped."""

import numpy as np
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf
from test_benchmark_command import TINY, files, measure, place, save, strictly  # noqa: F401

from irformer.config.compose import build_network, compose
from irformer.config.tasks import build_task
from irformer.data.test_sets import find_test_set
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.reduced_precision import CountingRestorer, calibration_images, evaluate_in_precision
from irformer.evaluation.restorers import NetworkRestorer
from irformer.imaging.images import write_image
from irformer.metrics import measure as measured
from irformer.precision import in_precision, scale_stream
from irformer.weights.checkpoints import save_network


def save_scaled(path, c, words=()):
    """Save a network whose stream is c times as large as that of its twin; the eps of norms is not part of a file and stays."""
    cfg = compose("train", [*TINY, "name=x", *words])
    torch.manual_seed(0)
    model, task = (OmegaConf.to_container(node, resolve=True) for node in (cfg.model, cfg.task))
    save_network(path, scale_stream(build_network(cfg.model), c), model, cfg.task.name, 10, {}, task)


def sr_x2():
    return build_task(compose("benchmark", ["task=sr_x2", "checkpoint=x"]).task)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp16_safe", "int8", "int4"])
def test_the_precision_is_in_the_table_the_record_and_the_folder(measure, place, attempts, precision):  # noqa: F811
    save(place / "a.safetensors")
    measure("checkpoint=a.safetensors")
    output = " ".join(measure("checkpoint=a.safetensors", f"precision={precision}").split())
    assert f"sr_x2, precision {precision}: psnr_y / ssim_y" in output
    assert f"one, {precision}: 0 of 1 images with NaN or infinite values; largest activation " in output
    plain, reduced = sorted(files(place), key=lambda file: precision in file.parent.name)
    assert reduced.parent.name.startswith(f"a-sr_x2-{precision}-")
    before, after = strictly(plain), strictly(reduced)
    assert not {"precision", "precision_scheme", "calibration"} & before["protocol"].keys()
    assert "precision" not in before["test_sets"]["one"]
    assert after["protocol"]["precision"] == precision
    assert after["protocol"]["precision_scheme"] in output
    assert len(after["protocol"].get("calibration", [])) == (4 if precision.startswith("int") else 0)
    assert after["test_sets"]["one"]["precision"]["non_finite"] == {"one": 0}
    assert after["test_sets"]["one"]["precision"]["values"] == 32 * 40 * 3
    assert after["test_sets"]["one"]["precision"]["first_overflow"] is None
    assert after["test_sets"]["one"]["precision"]["largest"]["layers.0"] > 0
    difference = after["test_sets"]["one"]["metrics"]["psnr_y"] - before["test_sets"]["one"]["metrics"]["psnr_y"]
    assert abs(difference) < {"int8": 0.5, "int4": 30}.get(precision, 0.1)
    assert difference != 0
    attempts.handled("benchmark")


def test_nan_is_counted_and_measured_as_black(measure, place, attempts):  # noqa: F811
    """The mean over the images contains the black one."""
    save_scaled(place / "large.safetensors", 2.0**20)
    fine = " ".join(measure("checkpoint=large.safetensors", "out=safe", "precision=fp16_safe").split())
    assert "one, fp16_safe: 0 of 1 images with NaN or infinite values; largest activation" in fine
    output = " ".join(measure("checkpoint=large.safetensors", "out=half", "precision=fp16").split())
    assert (
        "one, fp16: 1 of 1 images with NaN or infinite values (3,840 values), which are measured as black; activations overflow" in output
    )
    record, safe = (strictly(place / folder / "results.json")["test_sets"]["one"] for folder in ("half", "safe"))
    assert record["precision"]["non_finite"] == {"one": 3840}
    assert record["precision"]["first_overflow"] == "patch_embed.norm"
    task = sr_x2()
    truth = find_test_set("one", place, task)[0].hq
    black = measured(np.zeros_like(truth), truth, task.metrics, task.protocol.border, "exact")
    assert record["metrics"] == pytest.approx(black)
    assert safe["metrics"]["psnr_y"] > record["metrics"]["psnr_y"] + 3
    attempts.handled("benchmark")


def test_a_baseline_has_no_precision(measure, place, attempts):  # noqa: F811
    line = "error: precision=fp16: bicubic (this run) has no network to compute in it; expected precision=fp32"
    assert measure("checkpoint=bicubic", "precision=fp16") == line
    assert measure("checkpoint=bicubic", "precision=fp8").startswith("error: precision=fp8: expected")
    assert not files(place)
    attempts.refused("benchmark")


def test_results_of_another_precision_are_not_mixed(measure, place, attempts):  # noqa: F811
    save(place / "a.safetensors")
    measure("checkpoint=a.safetensors", "precision=bf16", "out=out")
    line = measure("checkpoint=a.safetensors", "precision=int4", "out=out", sets="two")
    assert line.startswith("error: out/results.json: contains results of another protocol: found precision bf16")
    measure("checkpoint=a.safetensors", "precision=bf16", "out=out", sets="two")
    assert [part["precision"]["non_finite"] for part in strictly(place / "out" / "results.json")["test_sets"].values()] == [
        {"one": 0},
        {"two": 0},
    ]
    attempts.refused("benchmark")


def test_each_set_has_its_own_record(place):  # noqa: F811
    write_image(place / "one" / "more.png", picture(32, 32, seed=5))
    task = sr_x2()
    torch.manual_seed(0)
    network = build_network(compose("train", [*TINY, "name=x"]).model).eval()
    sets = [find_test_set(name, place, task) for name in ("one", "two")]
    one, two = evaluate_in_precision(in_precision(network, "fp32"), sets)
    assert one.per_image == evaluate(NetworkRestorer(network, "network"), sets[0]).per_image
    assert list(one.precision["non_finite"]) == ["more", "one"]
    assert (one.precision["values"], two.precision["values"]) == (3 * 32 * (32 + 40), 3 * 32 * 40)
    assert one.precision["largest"] != two.precision["largest"]


def test_only_the_non_finite_values_of_an_image_are_black():
    class Spoiled(torch.nn.Module):
        scale = 1

        def forward(self, x):
            out = x.clone()
            out[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
            return out

    image = picture(16, 16)
    restorer = CountingRestorer(Spoiled(), "network")
    found = restorer(image)
    assert restorer.counts == [3]
    assert found[0, :3, 0].tolist() == [0, 0, 0]
    found[0, :3, 0] = image[0, :3, 0]
    assert np.array_equal(found, image)


@pytest.mark.parametrize(("words", "sides"), [(["task=sr_x4"], (100, 128)), (["task=jpeg_gray_10"], (128, 128))], ids=str)
def test_calibration_images_are_degraded_by_the_task(words, sides):
    task = build_task(compose("benchmark", [*words, "checkpoint=x"]).task)
    calibration = calibration_images(task)
    assert [name.partition(",")[0] for name in calibration.names] == ["coffee", "rocket", "ihc", "motorcycle_left"]
    assert calibration.images[0].shape == (1, task.channels, *sides)
    assert all(image.min() >= 0 and image.max() <= 1 for image in calibration.images)
    assert calibration.names[0] == f"coffee, {sides[1]}x{sides[0]} LQ pixels at the center"


def test_a_task_that_cannot_degrade_photos_is_calibrated_on_its_test_images(tmp_path):
    for folder in ("input", "target"):
        (tmp_path / "rain" / folder).mkdir(parents=True)
        for i in range(5):
            write_image(tmp_path / "rain" / folder / f"{i}.png", picture(140, 60, seed=i))
    task = build_task(compose("benchmark", ["task=derain", "checkpoint=x"]).task)
    calibration = calibration_images(task, [find_test_set("rain", tmp_path, task)])
    assert calibration.names == tuple(f"rain/{i}, 60x128 LQ pixels at the center" for i in range(4))
    expected = picture(140, 60, seed=3)[6:134].transpose(2, 0, 1)[None] / 255
    np.testing.assert_allclose(calibration.images[3].numpy(), expected, atol=1e-6)
