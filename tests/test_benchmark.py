"""Golden numbers of the protocols, and the rules that results depend on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture

import irformer
from irformer.config.compose import compose, instantiate
from irformer.data.test_sets import TestPair, TestSet, find_test_set
from irformer.evaluation.evaluate import SetResult, evaluate, evaluate_image, published_rows
from irformer.evaluation.restorers import BicubicRestorer, DegradedRestorer, NetworkRestorer, baseline, pad_flip_always, to_image
from irformer.metrics import luma, psnr_y
from irformer.reporting.page import benchmark_table
from irformer.tasks.degradations import Downscale
from irformer.tasks.task import EvaluationProtocol, Task

# Bicubic by MATLAB's uint8 imresize in both directions, on Y, border = scale. They agree with the literature within 0.02 dB except on
# Set14, whose gray file is read as color, as in SwinIR and HAT.
GOLDEN = {
    2: {"Set5": (33.673, 0.9303), "Set14": (30.325, 0.8699), "B100": (29.560, 0.8434)},
    3: {"Set5": (30.403, 0.8689), "Set14": (27.631, 0.7759), "B100": (27.209, 0.7391)},
    4: {"Set5": (28.429, 0.8111), "Set14": (26.088, 0.7048), "B100": (25.961, 0.6681)},
}
GOLDEN_URBAN100 = {2: (26.876, 0.8405), 3: (24.458, 0.7352), 4: (23.140, 0.6581)}


def super_resolution(scale: int, variant: str = "matlab_uint8") -> Task:
    protocol = EvaluationProtocol(lr=variant, border=scale, padding="flip_always", metrics=("psnr_y", "ssim_y"))
    return Task(f"sr_x{scale}", scale, 3, Downscale(scale, variant), protocol, ("Set5",))  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "name"), [(scale, name) for scale in GOLDEN for name in GOLDEN[scale]])
def test_bicubic_gives_the_golden_numbers(data_root, scale, name):
    found = evaluate(BicubicRestorer(scale), find_test_set(name, data_root, super_resolution(scale))).metrics
    assert found["psnr_y"] == pytest.approx(GOLDEN[scale][name][0], abs=0.002)
    assert found["ssim_y"] == pytest.approx(GOLDEN[scale][name][1], abs=0.0002)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_gives_the_golden_numbers_on_urban100(data_root, scale):
    found = evaluate(BicubicRestorer(scale), find_test_set("Urban100", data_root, super_resolution(scale))).metrics
    assert found["psnr_y"] == pytest.approx(GOLDEN_URBAN100[scale][0], abs=0.002)
    assert found["ssim_y"] == pytest.approx(GOLDEN_URBAN100[scale][1], abs=0.0002)


class _Nearest(torch.nn.Module):
    """A network that repeats pixels and records its input size."""

    scale, size_multiple = 2, 8
    seen: tuple[int, int] = (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = (x.shape[2], x.shape[3])
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(("padding", "size"), [("flip_always", (24, 40)), ("reflect_min", (16, 35))])
def test_padding_rules(padding, size):
    """flip_always adds a whole window even if the size fits, like SwinIR's test code; reflect_min leaves padding to the network."""
    network = _Nearest()
    image = picture(16, 35)
    restored = NetworkRestorer(network, padding)(image)
    assert network.seen == size
    assert (restored == image.repeat(2, 0).repeat(2, 1)).all()


def test_flip_always_repeats_the_edge_pixel():
    x = torch.arange(3.0).view(1, 1, 1, 3).expand(1, 1, 3, 3)
    assert pad_flip_always(x, 4)[0, 0, 0].tolist() == [0, 1, 2, 2]


def test_output_is_clamped_and_rounded():
    pixels = torch.tensor([-0.5, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 7.0]).view(1, 1, 1, 5)
    assert to_image(pixels).ravel().tolist() == [0, 0, 1, 255, 255]


def test_the_mean_is_over_images_not_over_pooled_errors():
    result = SetResult("two", "files", per_image={"a": {"psnr_y": 20.0}, "b": {"psnr_y": 40.0}})
    assert result.metrics == {"psnr_y": 30.0}


def test_a_gray_file_read_as_color_is_reported(data_root):
    """Set14's bridge is such a file; older papers evaluated its raw gray values, which lowers its PSNR by 1.33 dB."""
    assert find_test_set("Set14", data_root, super_resolution(2)).remarks == [
        "Set14: bridge read as color from a single-channel file, which narrows its Y to 16-235."
    ]


def task_of(name: str, *overrides: str) -> Task:
    return instantiate(compose("benchmark", [f"task={name}", *overrides, "checkpoint=degraded"]).task)


def test_published_rows_carry_their_source():
    rows = published_rows(super_resolution(2), ["Set5", "Urban100"])
    light = next(row for row in rows if row.model == "swinir_light")
    assert light.test_sets["Set5"]["psnr_y"] == 38.14
    assert light.source == "SwinIR paper"
    assert published_rows(super_resolution(2), ["no such set"]) == []


def test_every_published_row_fits_a_task():
    """The row's task exists, and has the row's metrics, test set and rules."""
    entries = json.loads((Path(irformer.__file__).parent / "evaluation/published.json").read_text())
    tasks = {name: task_of(name) for name in {entry["task"] for entry in entries}}
    for entry in entries:
        task = tasks[entry["task"]]
        assert {name for name in entry if name.startswith(("psnr", "ssim"))} <= set(task.protocol.metrics), entry
        assert entry["test_set"].split(" (")[0] in task.test_sets, entry
        assert set(entry["protocol"]) <= set(task.protocol.as_dict()), entry
        assert entry["source"]


@pytest.mark.parametrize(
    ("task", "overrides", "marked", "model", "rule"),
    [
        ("denoise_color_25", (), {"restormer"}, "swinir", "noise rgb, here bgr"),
        ("denoise_color_25", ("protocol=restormer",), {"swinir"}, "restormer", "noise bgr, here rgb"),
        ("denoise_gray_25", ("protocol=restormer",), set(), "swinir", ""),
        ("jpeg_gray_10", (), set(), "swinir", ""),
        ("jpeg_gray_10", ("protocol=kair",), {"swinir"}, "", "gray matlab, here opencv"),
        ("sr_x2", ("protocol=iln",), {"bicubic", "swinir", "swinir_light", "hat"}, "hat+iln", "lr matlab_uint8, here matlab_double"),
    ],
)
def test_published_rows_of_another_rule_are_marked(task, overrides, marked, model, rule):
    task = task_of(task, *overrides)
    sets = ["Set5", "CBSD68", "Set12", "Classic5", "LIVE1"]
    rows = published_rows(task, sets)
    assert {row.model for row in rows if row.differences} == marked
    assert {difference for row in rows for difference in row.differences} == ({rule} if rule else set())
    if model:
        assert any(row.model == model and not row.differences for row in rows)
    results = [SetResult(name, "files", per_image={"a": dict.fromkeys(task.protocol.metrics, 30.0)}) for name in sets]
    table = benchmark_table(task, {"ours": results}).markdown()
    assert (f"* measured under a different rule: {rule}." in table) == bool(rule)


def test_kodak24_is_compared_with_rows_of_its_own_variant():
    """SwinIR reports 35.34 on the 500x500 crops, Restormer 35.47 on the full images."""
    task = task_of("denoise_color_15")
    rows = {name: published_rows(task, [f"Kodak24 ({name})"]) for name in ("500x500", "768x512")}
    assert [row.model for row in rows["500x500"]] == ["swinir"]
    assert [row.model for row in rows["768x512"]] == ["restormer"]


def test_blind_rows_are_those_of_the_level():
    for sigma, psnr in ((15, 34.39), (25, 31.78), (50, 28.59)):
        (row,) = published_rows(task_of("denoise_color_blind", f"task.protocol.sigma={sigma}"), ["CBSD68"])
        assert row.test_sets["CBSD68"] == {"psnr_rgb": psnr}
    assert published_rows(task_of("denoise_color_blind", "task.protocol.sigma=30"), ["CBSD68"]) == []
    assert published_rows(task_of("denoise_color_15", "task.protocol.sigma=30"), ["CBSD68"]) == []


# The degraded image itself, on the first three images of each set. Noise of sigma 25 gives 20log10(255/25) = 20.17 dB before clamping.
DEGRADED = {
    ("denoise_gray_25", "Set12"): {"psnr": 20.4064, "ssim": 0.3296},
    ("jpeg_gray_10", "Classic5"): {"psnr": 26.0851, "ssim": 0.7311, "psnr_b": 23.6979},
    ("jpeg_color_10", "LIVE1"): {"psnr_rgb": 23.1907, "ssim_rgb": 0.7306, "psnr_b": 20.9487},
    ("derain", "Rain100L_sample"): {"psnr_y": 21.8718, "ssim_y": 0.7197},
}


@pytest.mark.parametrize(("name", "test_set"), DEGRADED)
def test_the_degraded_input_gives_the_golden_numbers(data_root, name, test_set):
    task = task_of(name)
    called, restorer = baseline(task)
    assert called == "degraded"
    whole = find_test_set(test_set, data_root, task)
    found = evaluate(restorer, TestSet(whole.name, whole.pairs[:3], task)).metrics
    assert found == pytest.approx(DEGRADED[name, test_set], abs=2e-4)


def test_the_degraded_restorer_clamps_and_rounds():
    lq = np.array([-0.2, 0.5, 1.3], np.float32).reshape(1, 3, 1)
    assert DegradedRestorer()(lq).ravel().tolist() == [0, 128, 255]
    assert np.array_equal(DegradedRestorer()(picture(4, 5)), picture(4, 5))


def test_the_task_s_protocol_decides_how_y_is_rounded():
    truth, lq = picture(24, 24), picture(24, 24, seed=1)
    protocol = EvaluationProtocol(border=0, padding="network", metrics=("psnr_y",))
    exact, rounded = (
        evaluate_image(DegradedRestorer(), TestPair("a", lq, truth), replace(super_resolution(2), protocol=replace(protocol, luma=rule)))[
            0
        ]["psnr_y"]
        for rule in (None, "rounded")
    )
    assert exact == psnr_y(lq, truth)
    y = (np.floor(luma(image) + 0.5) for image in (lq, truth))
    assert rounded == pytest.approx(10 * np.log10(255**2 / np.mean((next(y) - next(y)) ** 2)), abs=1e-9)
    assert exact != rounded


def test_the_lr_variant_is_part_of_the_protocol(data_root):
    """matlab_double does not use the LR files, which are of the other variant: about a tenth of the bytes differ by 1 or 2."""
    uint8 = find_test_set("Set5", data_root, super_resolution(2))
    double = find_test_set("Set5", data_root, super_resolution(2, "matlab_double"))
    assert (uint8.lq_source, double.lq_source) == ("files", "made on the fly")
    difference = np.abs(uint8[0].lq.astype(int) - double[0].lq)
    assert 0.05 < (difference > 0).mean() < 0.2
    assert difference.max() <= 2
