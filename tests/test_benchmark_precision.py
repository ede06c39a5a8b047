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
from irformer.evaluation.image_costs import measure_set
from irformer.evaluation.reduced_precision import calibration_images, joined_records
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.results import read_records
from irformer.imaging.images import write_image
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
    assert f"one, {precision}: largest activation " in output
    plain, reduced = sorted(files(place), key=lambda file: precision in file.parent.name)
    assert reduced.parent.name.startswith(f"a-sr_x2-{precision}-")
    before, after = strictly(plain), strictly(reduced)
    assert not {"precision", "precision_scheme", "calibration"} & before["protocol"].keys()
    assert "precision" not in before["test_sets"]["one"]
    assert after["protocol"]["precision"] == precision
    assert after["protocol"]["precision_scheme"] in output
    assert len(after["protocol"].get("calibration", [])) == (4 if precision.startswith("int") else 0)
    assert "non_finite" not in after["test_sets"]["one"]
    assert after["test_sets"]["one"]["precision"]["first_overflow"] is None
    assert after["test_sets"]["one"]["precision"]["largest"]["layers.0"] > 0
    difference = after["test_sets"]["one"]["metrics"]["psnr_y"] - before["test_sets"]["one"]["metrics"]["psnr_y"]
    assert abs(difference) < {"int8": 0.5, "int4": 30}.get(precision, 0.1)
    assert difference != 0
    attempts.handled("benchmark")


def test_nan_is_counted_and_has_no_mean(measure, place, attempts):  # noqa: F811
    """A mean over the other images would look better than the network is; results.json keeps their values."""
    write_image(place / "one" / "more.png", picture(32, 40, seed=7))
    save_scaled(place / "large.safetensors", 2.0**20)
    fine = " ".join(measure("checkpoint=large.safetensors", "out=safe", "precision=fp16_safe").split())
    assert "one, fp16_safe: largest activation" in fine
    output = " ".join(measure("checkpoint=large.safetensors", "out=half", "precision=fp16").split())
    assert "NaN or inf in 2 of 2" in output
    assert "one: NaN or infinite values in more (3,840 values), one (3,840 values); such a set has no mean." in output
    assert "one, fp16: activations overflow first in patch_embed.norm; use " in output
    record, safe = (strictly(place / folder / "results.json")["test_sets"]["one"] for folder in ("half", "safe"))
    assert record["non_finite"] == {"more": 3840, "one": 3840}
    assert (record["images"], record["metrics"], record["per_image"]) == (2, {}, {})
    assert record["precision"]["first_overflow"] == "patch_embed.norm"
    assert safe["metrics"]["psnr_y"] > 5
    assert "one,3840,40,32" in (place / "half" / "per_image.csv").read_text().replace(",,", ",").replace(",,", ",")
    (read,) = read_records(place / "half" / "results.json")
    assert read.test_sets["one"].non_finite == {"more": 3840, "one": 3840}
    attempts.handled("benchmark")


def test_a_baseline_has_no_precision(measure, place, attempts):  # noqa: F811
    line = "error: precision=fp16: bicubic has no network to compute in it; expected precision=fp32"
    assert measure("checkpoint=bicubic", "precision=fp16") == line
    assert measure("checkpoint=bicubic", "precision=fp8").startswith("error: precision=fp8: expected")
    assert not files(place)
    attempts.refused("benchmark")


def test_results_of_another_precision_are_kept_beside_each_other(measure, place, attempts):  # noqa: F811
    save(place / "a.safetensors")
    measure("checkpoint=a.safetensors", "precision=bf16", "out=out")
    measure("checkpoint=a.safetensors", "precision=int4", "out=out", sets="two")
    measure("checkpoint=a.safetensors", "precision=bf16", "out=out", sets="two")
    bf16, int4 = read_records(place / "out" / "results.json")
    assert (bf16.protocol["precision"], list(bf16.test_sets)) == ("bf16", ["one", "two"])
    assert (int4.protocol["precision"], list(int4.test_sets)) == ("int4", ["two"])
    attempts.handled("benchmark")


def test_copies_of_a_network_record_together_what_one_records():
    """Processes that share the images of a set each see a part of the activations."""
    torch.manual_seed(0)
    network = build_network(compose("train", [*TINY, "name=x"]).model).eval()
    whole, first, second = (in_precision(network, "bf16") for _ in range(3))
    images = torch.rand(2, 3, 16, 16)
    for reduced, part in ((whole, images), (first, images[:1]), (second, images[1:])):
        reduced.reset()
        for image in part:
            reduced.network(image[None])
    assert joined_records([first.record(), second.record()]) == whole.record()


def test_only_images_with_values_that_are_not_finite_are_left_out(place):  # noqa: F811
    class Spoiled(torch.nn.Module):
        scale = 2

        def forward(self, x):
            out = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            if x.shape[3] > 16:
                out[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
            return out

    write_image(place / "one" / "small.png", picture(32, 32, seed=5))
    seen = {}
    found = measure_set(NetworkRestorer(Spoiled(), "network"), find_test_set("one", place, sr_x2()), on_image=seen.__setitem__)
    assert (list(found.per_image), found.non_finite, found.metrics, found.images) == (["small"], {"one": 3}, {}, 2)
    assert seen["one"] is None
    assert seen["small"].shape == (32, 32, 3)
    assert {name: (cost.height, cost.width, cost.tile) for name, cost in found.costs.items()} == {
        "one": (32, 40, None),
        "small": (32, 32, None),
    }
    assert all(cost.seconds > 0 for cost in found.costs.values())


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
