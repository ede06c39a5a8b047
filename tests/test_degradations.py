"""Degradations to the byte: the published rules written out again, checksums of one image of each kind, patches against whole images."""

import hashlib

import cv2
import numpy as np
import pytest
import torch
from conftest import picture, require_set5

from irformer.config.compose import compose, instantiate
from irformer.data.samples import surroundings
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.imaging.gray import to_gray
from irformer.tasks.degradations import Downscale, GaussianNoise, Jpeg
from irformer.tasks.task import Task


def task_of(name: str, protocol: str | None = None, *overrides: str) -> Task:
    preset = [f"protocol={protocol}"] if protocol else []
    return instantiate(compose("benchmark", [f"task={name}", *preset, *overrides, "checkpoint=degraded"]).task)


# The first 16 digits of the sha256 of the degraded array, [h, w, C] in the order of RGB.
CHECKSUMS = [
    ("sr_x2", None, "Set5", "butterfly", "b42608efcaf94b7b"),
    ("sr_x3", None, "Set5", "butterfly", "9447df48c6b02a3b"),
    ("sr_x4", None, "Set5", "butterfly", "6fa397dfbec34c49"),
    ("sr_x8", None, "Set5", "butterfly", "6abae117498586eb"),
    ("sr_x2", "iln", "Set5", "butterfly", "53e7b5f06b2fb581"),
    ("denoise_color_25", None, "Kodak24", "kodim01", "4e42fed1fcbf6c47"),
    ("denoise_color_25", "restormer", "Kodak24", "kodim01", "9dd1c831bfaf4235"),
    ("denoise_gray_25", None, "Set12", "01", "6f46267e14c74bbf"),
    ("denoise_gray_25", "restormer", "Set12", "01", "6f46267e14c74bbf"),
    ("jpeg_gray_10", None, "LIVE1", "bikes", "75e5e79899ab3a81"),
    ("jpeg_gray_10", "kair", "LIVE1", "bikes", "9853546a7eadcc15"),
    ("jpeg_color_10", None, "LIVE1", "bikes", "89d1419510513247"),
    ("derain", None, "Rain100L_sample", "1", "9e74fc49aac8dbf7"),
]


@pytest.mark.parametrize(("task", "protocol", "test_set", "image", "checksum"), CHECKSUMS)
def test_degraded_bytes_are_what_they_were(data_root, task, protocol, test_set, image, checksum):
    """Those of JPEG are libjpeg-turbo's (3.1.2 in OpenCV 5.0), which has kept its bytes over many releases but need not for ever."""
    found = find_test_set(test_set, data_root, task_of(task, protocol))
    i = [pair.name for pair in found.pairs].index(image)
    assert hashlib.sha256(np.ascontiguousarray(found[i].lq).tobytes()).hexdigest()[:16] == checksum


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_lr_made_on_the_fly_is_that_of_the_official_files(data_root, scale):
    """At x8 these are of the double variant, which is why sr_x8 has it."""
    require_set5(data_root, scale)
    task = task_of(f"sr_x{scale}")
    on_disk = find_test_set("Set5", data_root, task)
    assert on_disk.lq_source == "files"
    made = find_test_set(str(data_root / "Set5" / "HR"), data_root, task)
    assert made.lq_source == "made on the fly"
    for a, b in zip(on_disk, made, strict=True):
        assert np.array_equal(a.lq, b.lq)
        assert np.array_equal(a.hq, b.hq)


def test_test_noise_is_that_of_the_published_scripts():
    """Seed 0 before each image; SwinIR adds it to BGR and then turns the channels, Restormer to RGB. Neither clipped nor rounded."""
    image = picture(20, 31)
    np.random.seed(0)
    bgr = image[..., ::-1].astype(np.float32) / 255.0
    swinir = (bgr + np.random.normal(0, 25 / 255.0, bgr.shape))[..., ::-1].astype(np.float32)
    np.random.seed(0)
    restormer = np.float32(image) / 255.0
    restormer += np.random.normal(0, 25 / 255.0, restormer.shape)
    for order, expected in (("bgr", swinir), ("rgb", restormer)):
        degradation = GaussianNoise(25, 25, order)
        assert np.array_equal(degradation.test(image), expected)
        assert np.array_equal(degradation.test(image), expected)  # the seed is set before every image
    assert swinir.dtype == np.float32
    assert swinir.min() < 0 or swinir.max() > 1
    gray = picture(20, 31, 1)
    assert np.array_equal(GaussianNoise(25, 25, "bgr").test(gray), GaussianNoise(25, 25, "rgb").test(gray))


def test_gray_of_the_two_rules():
    image = picture(30, 40)
    b, g, r = (image[..., c].astype(np.float64) for c in (2, 1, 0))
    y = (24.966 * b + 128.553 * g + 65.481 * r) / 255 + 16
    matlab = to_gray(image, "matlab")
    assert matlab.shape == (30, 40, 1)
    assert np.abs(matlab[..., 0] - y).max() <= 0.5 + 1e-9
    assert to_gray(np.full((1, 1, 3), 255, np.uint8), "matlab").item() == 235
    assert np.array_equal(to_gray(image, "opencv")[..., 0], cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def test_matlab_s_y_falls_to_the_side_of_the_published_code_at_every_tie():
    """Of all colours 194 lie half way between two levels; SwinIR's float32 pixels send all of them up, float64 does not."""
    grid = np.stack(np.meshgrid(*[np.arange(256)] * 3, indexing="ij"), -1).reshape(-1, 3)
    ties = grid[(grid @ [65481, 128553, 24966]) % 255000 == 127500]
    assert len(ties) == 194
    pixels = ties[None, :, ::-1].astype(np.float32)
    pixels /= 255.0
    swinir = (np.dot(pixels, [24.966, 128.553, 65.481]) + 16.0).round()
    assert np.array_equal(to_gray(ties[None].astype(np.uint8), "matlab")[..., 0], swinir)
    assert np.array_equal(swinir[0], (ties @ [65481, 128553, 24966] + 127500) // 255000 + 16)


def test_jpeg_is_opencvs():
    image = picture(37, 50)
    bgr = np.ascontiguousarray(image[..., ::-1])
    colour = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR)
    assert np.array_equal(Jpeg(40, 10, 3).test(image), colour[..., ::-1])
    gray = to_gray(image, "matlab")
    plane = cv2.imdecode(cv2.imencode(".jpg", gray[..., 0], [cv2.IMWRITE_JPEG_QUALITY, 10])[1], 0)
    assert np.array_equal(Jpeg(40, 10, 1).test(gray)[..., 0], plane)


def assert_patches_are_those_of_the_whole(degradation, image: np.ndarray, size: int, tops: range, lefts: range) -> None:
    rng = np.random.default_rng(0)
    whole = degradation.degrade_patch(image, rng)
    for top in tops:
        for left in lefts:
            rows, columns = (surroundings(s, size, side, degradation) for s, side in ((top, image.shape[0]), (left, image.shape[1])))
            part = degradation.degrade_patch(image[rows, columns], rng)
            inner = part[top - rows.start :, left - columns.start :][:size, :size]
            assert np.array_equal(inner, whole[top : top + size, left : left + size]), (top, left)


@pytest.mark.parametrize(("channels", "grid"), [(1, 8), (3, 16)])
@pytest.mark.parametrize("quality", [10, 90])
def test_a_jpeg_patch_has_the_bytes_of_the_whole_image_at_every_phase(channels, grid, quality):
    """Inside, with the patch on and off the grid of blocks; the picture's sides are no multiples of a block."""
    image = np.random.default_rng(1).integers(0, 256, (75, 93, channels), np.uint8)
    jpeg = Jpeg(quality, quality, channels)
    assert jpeg.grid == grid
    assert_patches_are_those_of_the_whole(jpeg, image, 19, range(16, 16 + grid), range(32, 32 + grid))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(48, 64), (51, 67), (53, 71)])
def test_a_jpeg_patch_has_the_bytes_of_the_whole_image_at_the_borders(channels, shape):
    image = np.random.default_rng(2).integers(0, 256, (*shape, channels), np.uint8)
    jpeg = Jpeg(20, 20, channels)
    last_row, last_column = shape[0] - 21, shape[1] - 21
    for tops in (range(3), range(last_row - 2, last_row + 1)):
        for lefts in (range(3), range(last_column - 2, last_column + 1)):
            assert_patches_are_those_of_the_whole(jpeg, image, 21, tops, lefts)


def test_blind_quality_is_drawn_from_its_range_with_both_ends():
    image = picture(24, 24, 1)
    jpeg, rng = Jpeg([10, 12], 10, 1), np.random.default_rng(0)
    drawn = {jpeg.degrade_patch(image, rng).tobytes() for _ in range(60)}
    assert drawn == {Jpeg(q, q, 1).test(image).tobytes() for q in (10, 11, 12)}
    assert len(drawn) == 3


def test_noise_of_a_batch_has_its_level_and_depends_on_each_sample_s_seed_alone():
    clean = torch.full((4, 3, 64, 64), 0.5)
    noise = GaussianNoise(25, 25)
    noisy = noise.degrade_batch(clean, [5, 6, 7, 5])
    assert (noisy - clean).std().item() * 255 == pytest.approx(25, rel=0.02)
    assert abs((noisy - clean).mean().item()) * 255 < 0.5
    assert noisy.max() > 0.85  # not clipped to a patch's own range, nor rounded
    assert torch.equal(noisy[0], noisy[3])
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(noise.degrade_batch(clean[:1], [7])[0], noisy[2])
    assert torch.equal(clean, torch.full((4, 3, 64, 64), 0.5))


def test_blind_levels_are_uniform_over_their_range():
    clean = torch.zeros(300, 1, 24, 24)
    levels = GaussianNoise([0, 50], 25).degrade_batch(clean, range(300)).flatten(1).std(1) * 255
    assert levels.max() < 55
    for quarter in range(4):
        share = ((levels >= 12.5 * quarter) & (levels < 12.5 * (quarter + 1))).float().mean()
        assert 0.16 < share < 0.34  # a quarter, within 3.5 standard deviations


def test_wrong_levels_are_named():
    with pytest.raises(ValueError, match="expected 1 to 100"):
        Jpeg(0, 10, 1)
    with pytest.raises(ValueError, match=r"sigma=\[50,0\]: expected the smaller value first"):
        GaussianNoise([50, 0], 25)
    with pytest.raises(UserError, match=r"task\.protocol\.noise=gbr: expected bgr or rgb"):
        task_of("denoise_color_15", None, "task.protocol.noise=gbr")
    with pytest.raises(UserError, match=r"task\.protocol\.gray=pil: expected matlab, opencv"):
        task_of("jpeg_gray_10", None, "task.protocol.gray=pil")
    with pytest.raises(ValueError, match="not a multiple of the scale 2"):
        Downscale(2).test(picture(5, 6))
