"""PSNR and SSIM against independent arithmetic, and the wrong choices that the field knows."""

from functools import partial

import cv2
import numpy as np
import pytest
from conftest import picture

from irformer.metrics import MAE, METRICS, RMSE, MetricTraits, luma, measure, psnr, psnr_b, psnr_y, ssim, ssim_y

PSNR_Y = {"psnr_y": METRICS["psnr_y"]}


def test_luma_is_matlabs_studio_range():
    black, white = ([[[v, v, v]]] for v in (0, 255))
    assert luma(np.array(black, np.uint8)).item() == 16.0
    assert luma(np.array(white, np.uint8)).item() == pytest.approx(235.0, abs=1e-12)
    assert luma(np.array([[[255, 0, 0]]], np.uint8)).item() == pytest.approx(81.481, abs=1e-12)


def test_psnr_of_a_known_error():
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(truth + 5, truth) == pytest.approx(20 * np.log10(255 / 5), abs=1e-12)
    assert psnr(truth, truth) == float("inf")
    # One gray level on all three channels is 219/255 of a level on Y, while the peak stays 255.
    assert psnr_y(truth + 5, truth) == pytest.approx(20 * np.log10(255 / (5 * 219 / 255)), abs=1e-9)


def _reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, by 11x11 Gaussian filters on the valid region."""
    kernel = cv2.getGaussianKernel(11, 1.5)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x, -1, kernel @ kernel.T)[5:-5, 5:-5]

    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2, blur(a * b) - mu_a * mu_b
    return float((((2 * mu_a * mu_b + c1) * (2 * cov + c2)) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))).mean())


def test_ssim_equals_its_definition():
    truth, restored = picture(40, 50), picture(40, 50, seed=1)
    planes = [_reference_ssim(restored[..., c], truth[..., c]) for c in range(3)]
    assert ssim(restored, truth) == pytest.approx(np.mean(planes), abs=1e-10)
    assert ssim_y(restored, truth) == pytest.approx(_reference_ssim(luma(restored), luma(truth)), abs=1e-10)
    assert ssim(truth, truth) == pytest.approx(1.0)


def test_the_border_is_cropped_on_all_four_sides():
    truth = picture(30, 30)
    restored = truth.copy()
    restored[:2] = restored[-2:] = 0
    restored[:, :2] = restored[:, -2:] = 0
    assert measure(restored, truth, PSNR_Y, border=2)["psnr_y"] == float("inf")
    assert measure(restored, truth, PSNR_Y, border=1)["psnr_y"] < 30


def test_images_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"restored image has shape \(4, 4, 3\), ground truth \(4, 5, 3\): expected equal shapes"):
        measure(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), PSNR_Y)
    with pytest.raises(ValueError, match="empty after cropping a border of 2"):
        measure(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), PSNR_Y, border=2)


def _reference_psnr_b(restored: np.ndarray, truth: np.ndarray) -> float:
    """The definition with loops: pairs of neighbours across edges of 8x8 blocks against all other pairs, in the restored plane."""
    a, b = restored / 255.0, truth / 255.0
    height, width = a.shape
    at_edges = sum(((a[:, x] - a[:, x + 1]) ** 2).sum() for x in range(7, width - 1, 8))
    at_edges += sum(((a[y] - a[y + 1]) ** 2).sum() for y in range(7, height - 1, 8))
    elsewhere = sum(((a[:, x] - a[:, x + 1]) ** 2).sum() for x in range(width - 1) if x % 8 != 7)
    elsewhere += sum(((a[y] - a[y + 1]) ** 2).sum() for y in range(height - 1) if y % 8 != 7)
    count = height * (width // 8 - 1) + width * (height // 8 - 1)
    rest = height * (width - 1) + width * (height - 1) - count
    effect = max(0.0, at_edges / count - elsewhere / rest) * 3 / np.log2(min(height, width))
    return float(10 * np.log10(1 / (np.mean((a - b) ** 2) + effect)))


@pytest.mark.parametrize("shape", [(40, 56), (43, 61)])
def test_psnr_b_equals_its_definition(shape):
    truth = picture(*shape)
    blocky = cv2.imdecode(cv2.imencode(".jpg", truth[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 5])[1], cv2.IMREAD_COLOR)[..., ::-1]
    planes = [_reference_psnr_b(blocky[..., c].astype(np.float64), truth[..., c].astype(np.float64)) for c in range(3)]
    assert psnr_b(blocky, truth) == pytest.approx(np.mean(planes), abs=1e-9)
    assert psnr_b(blocky[..., :1], truth[..., :1]) == pytest.approx(planes[0], abs=1e-9)
    assert psnr_b(blocky[..., :1], truth[..., :1]) < psnr(blocky[..., :1], truth[..., :1])


def test_psnr_b_sees_blocks_in_the_restored_image_alone():
    smooth = np.tile(np.arange(64, dtype=np.uint8), (64, 1))[..., None]
    blocks = smooth // 8 * 8
    assert psnr_b(smooth, blocks) == pytest.approx(psnr(smooth, blocks), abs=1e-9)  # blocks in the true image are none of its faults
    assert psnr_b(blocks, smooth) < psnr(blocks, smooth) - 1
    assert psnr_b(smooth, smooth) == float("inf")


@pytest.mark.parametrize("rule", ["exact", "rounded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_objects_give_the_functions_numbers_to_the_bit(channels, rule):
    truth, restored = picture(40, 50, channels), picture(40, 50, channels, seed=1)
    functions = {"psnr": psnr, "ssim": ssim, "psnr_rgb": psnr, "ssim_rgb": ssim, "psnr_b": psnr_b}
    if channels == 3:
        functions |= {"psnr_y": partial(psnr_y, rule=rule), "ssim_y": partial(ssim_y, rule=rule)}
    inner = slice(3, -3)
    expected = {name: function(restored[inner, inner], truth[inner, inner]) for name, function in functions.items()}
    assert measure(restored, truth, {name: METRICS[name] for name in functions}, border=3, luma_rule=rule) == expected
    assert {name for name, metric in METRICS.items() if channels in metric.channels} == functions.keys()


def test_what_a_built_in_metric_is_and_needs():
    psnr_traits, ssim_traits = MetricTraits(True, 2, "dB"), MetricTraits(True, 4, "")
    assert {name: metric.traits for name, metric in METRICS.items()} == {
        "psnr_y": psnr_traits,
        "ssim_y": ssim_traits,
        "psnr_rgb": psnr_traits,
        "ssim_rgb": ssim_traits,
        "psnr": psnr_traits,
        "ssim": ssim_traits,
        "psnr_b": psnr_traits,
    }
    assert {name: metric.smallest_side for name, metric in METRICS.items() if metric.smallest_side > 1} == dict.fromkeys(
        ("ssim_y", "ssim_rgb", "ssim"), 11
    )
    assert (METRICS["psnr_y"].name, METRICS["ssim"].name) == ("PSNR on Y", "SSIM")


def test_errors_in_gray_levels():
    """A quarter of the values differ by 4, the others by 0; on Y a gray level is 219/255 of one."""
    truth = np.full((8, 8, 3), 100, np.uint8)
    restored = truth.copy()
    restored[:4, :4] -= 4
    found = measure(restored, truth, {"mae": MAE(), "rmse": RMSE(), "mae_y": MAE(on_y=True)})
    assert found == pytest.approx({"mae": 1, "rmse": 2, "mae_y": 219 / 255}, abs=1e-12)
    assert MAE().traits == RMSE().traits == MetricTraits(False, 3, "gray levels")
