"""Golden numbers of the protocols, and the rules that a number depends on."""

import numpy as np
import pytest
import torch
from conftest import picture

from irformer.benchmark import SetResult, evaluate, published_rows
from irformer.data.test_sets import find_test_set
from irformer.degradations import Downscale
from irformer.inference import BicubicRestorer, NetworkRestorer, pad_flip_always, to_image
from irformer.tasks import Protocol, Task

# Bicubic, MATLAB's uint8 imresize both ways, Y, border = scale; they meet the literature within 0.02 dB but for Set14, whose gray file is
# read as colour here as in SwinIR and HAT.
GOLDEN = {
    2: {"Set5": (33.673, 0.9303), "Set14": (30.325, 0.8699), "B100": (29.560, 0.8434)},
    3: {"Set5": (30.403, 0.8689), "Set14": (27.631, 0.7759), "B100": (27.209, 0.7391)},
    4: {"Set5": (28.429, 0.8111), "Set14": (26.088, 0.7048), "B100": (25.961, 0.6681)},
}
GOLDEN_URBAN100 = {2: (26.876, 0.8405), 3: (24.458, 0.7352), 4: (23.140, 0.6581)}


def super_resolution(scale: int, variant: str = "matlab_uint8") -> Task:
    protocol = Protocol(lr=variant, border=scale, padding="flip_always", metrics=("psnr_y", "ssim_y"))
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
    """A network that repeats pixels, and remembers the size that it was given."""

    scale, size_multiple = 2, 8
    seen: tuple[int, int] = (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = (x.shape[2], x.shape[3])
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(("padding", "size"), [("flip_always", (24, 40)), ("reflect_min", (16, 35))])
def test_padding_rules(padding, size):
    """flip_always adds a whole window where the size fits already, as SwinIR's test code; reflect_min leaves padding to the network."""
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


def test_a_gray_file_read_as_colour_is_said(data_root):
    """Set14's bridge: old tables measured it raw, which lowers its PSNR by 1.33 dB."""
    assert find_test_set("Set14", data_root, super_resolution(2)).remarks == [
        "Set14: bridge read as colour from a single-channel file, which narrows its Y to 16-235."
    ]


def test_published_rows_carry_their_source():
    rows = published_rows("sr_x2", ["Set5", "Urban100"])
    light = next(row for row in rows if row.model == "swinir_light")
    assert light.test_sets["Set5"]["psnr_y"] == 38.14
    assert light.source == "SwinIR paper"
    assert published_rows("no_such_task", ["Set5"]) == []


def test_the_lr_variant_is_part_of_the_protocol(data_root):
    """matlab_double is not taken from the LR files, which are the other variant: a tenth of the bytes differ, by 1 or 2."""
    uint8 = find_test_set("Set5", data_root, super_resolution(2))
    double = find_test_set("Set5", data_root, super_resolution(2, "matlab_double"))
    assert (uint8.lq_source, double.lq_source) == ("files", "made on the fly")
    difference = np.abs(uint8[0].lq.astype(int) - double[0].lq)
    assert 0.05 < (difference > 0).mean() < 0.2
    assert difference.max() <= 2
