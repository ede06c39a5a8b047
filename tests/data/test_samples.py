"""Training samples: their place in the images, their bytes, and what alone decides them."""

import numpy as np
import pytest
import torch
from conftest import picture
from torch.utils.data import DataLoader

from irformer.data.samples import GlobalBatches, TrainingSamples
from irformer.data.sources import FolderImages, find_training_set, pair_folders
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.imaging.resize import imresize
from irformer.tasks.degradations import Downscale
from irformer.tasks.task import EvaluationProtocol, Task


def super_resolution(scale: int = 2) -> Task:
    protocol = EvaluationProtocol(lr="matlab_uint8", border=scale, padding="flip_always", metrics=("psnr_y",))
    return Task(f"sr_x{scale}", scale, 3, Downscale(scale), protocol, ("Set5",))


@pytest.fixture
def folder(tmp_path):
    """Clean images of several sizes, one of them with sides that no scale divides."""
    (tmp_path / "HR").mkdir()
    for i, size in enumerate([(64, 96), (75, 61), (50, 49)]):
        write_image(tmp_path / "HR" / f"{i}.png", picture(*size, seed=i))
    return tmp_path / "HR"


def _samples(folder, scale: int = 2, lq=None, patch: int = 16, seed: int = 0) -> TrainingSamples:
    return TrainingSamples(FolderImages(pair_folders(folder, lq, scale), scale), super_resolution(scale), Stages.constant(patch, 4), seed)


def _unorient(patch: np.ndarray, orientation: int) -> np.ndarray:
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    if orientation & 2:
        patch = patch[::-1]
    if orientation & 1:
        patch = patch[:, ::-1]
    return patch


def _find(patch: np.ndarray, images: list[np.ndarray]) -> tuple[int, int, int, int] | None:
    """Image, top, left and orientation at which a patch stands."""
    for orientation in range(8):
        plain = _unorient(patch, orientation)
        for i, image in enumerate(images):
            windows = np.lib.stride_tricks.sliding_window_view(image, plain.shape[:2], axis=(0, 1))
            places = np.argwhere((windows == plain.transpose(2, 0, 1)).all((2, 3, 4)))
            if len(places):
                return i, int(places[0][0]), int(places[0][1]), orientation
    return None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lq_made_from_a_patch_is_the_lq_of_the_whole_image(folder, scale):
    """Degraded with its margin, a patch has the very bytes that the whole image's LR has there, at the borders too."""
    samples = _samples(folder, scale, patch=8)
    whole = []
    for i in range(3):
        height, width = samples.images.size(i)
        image = samples.images.hq(i)[:height, :width]
        whole.append(imresize(image, height // scale, width // scale))
    borders = 0
    for index in range(60):
        lq, hq = (samples[index][name].permute(1, 2, 0).numpy() for name in ("lq", "hq"))
        place = _find(lq, whole)
        assert place is not None
        i, top, left, orientation = place
        clean = samples.images.hq(i)[top * scale : (top + 8) * scale, left * scale : (left + 8) * scale]
        assert (_unorient(hq, orientation) == clean).all()
        borders += top == 0 or left == 0
    assert borders > 0


def test_lq_files_are_used_where_they_are(folder, tmp_path):
    (tmp_path / "LR").mkdir()
    for i, (height, width) in enumerate([(32, 48), (37, 30), (25, 24)]):
        write_image(tmp_path / "LR" / f"{i}x2.png", np.full((height, width, 3), 10 * (i + 1), np.uint8))
    values = {int(v) for index in range(20) for v in _samples(folder, lq=tmp_path / "LR")[index]["lq"].unique()}
    assert values <= {10, 20, 30}


def test_a_sample_depends_on_seed_and_index_alone(folder):
    first, again, other = (_samples(folder, seed=seed) for seed in (0, 0, 1))
    backwards = {index: again[index] for index in reversed(range(12))}
    for index in range(12):
        assert all(torch.equal(first[index][name], backwards[index][name]) for name in ("lq", "hq"))
    assert any(not torch.equal(first[index]["hq"], other[index]["hq"]) for index in range(12))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_samples(folder, workers):
    samples = _samples(folder)
    alone = list(DataLoader(samples, batch_sampler=GlobalBatches(Stages.constant(16, 4), 5)))
    shared = list(DataLoader(samples, batch_sampler=GlobalBatches(Stages.constant(16, 4), 5), num_workers=workers))
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a["lq"], b["lq"])
        assert torch.equal(a["hq"], b["hq"])
        assert a["lq"].dtype == torch.uint8


def test_all_eight_orientations_occur(folder):
    samples = _samples(folder, patch=16)
    images = [samples.images.hq(i) for i in range(3)]
    found = {_find(samples[index]["hq"].permute(1, 2, 0).numpy(), images)[3] for index in range(80)}  # type: ignore[index]
    assert found == set(range(8))


def test_processes_and_accumulation_deal_out_the_same_samples():
    whole = [index for batch in GlobalBatches(Stages.constant(16, 8), 3) for index in batch]
    assert whole == list(range(24))
    parts = [list(GlobalBatches(Stages.constant(16, 8), 3, accumulate=2, rank=rank, world_size=2)) for rank in range(2)]
    for step in range(3):
        step_indices = sorted(i for part in parts for batch in part[2 * step : 2 * step + 2] for i in batch)
        assert step_indices == list(range(8 * step, 8 * step + 8))


def test_a_resumed_sampler_goes_on_where_the_first_stopped():
    whole, rest = list(GlobalBatches(Stages.constant(16, 4), 10)), list(GlobalBatches(Stages.constant(16, 4), 10, start=6))
    assert rest == whole[6:]
    assert len(GlobalBatches(Stages.constant(16, 4), 10, start=6)) == 10


def test_too_small_images_are_named_before_training(folder):
    with pytest.raises(UserError, match=r"0\.png: 96x64 pixels, smaller than the training patch of 80x80 \(3 such images\).*patch_size=24"):
        _samples(folder, patch=40)


def test_pairs_that_do_not_fit_are_named(folder, tmp_path):
    (tmp_path / "LR").mkdir()
    for i, (height, width) in enumerate([(32, 48), (30, 30), (25, 25)]):
        write_image(tmp_path / "LR" / f"{i}.png", picture(height, width))
    with pytest.raises(UserError, match=r"2 of 3 pairs do not match.*the first: 1\.png 61x75 with 1\.png 30x30; 2\.png"):
        _samples(folder, lq=tmp_path / "LR")
    (tmp_path / "LR" / "2.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images in .* have no degraded counterpart in .*, the first: 2"):
        _samples(folder, lq=tmp_path / "LR")


def test_known_sets_are_found_in_their_own_trees(tmp_path):
    hq, lq = tmp_path / "DIV2K" / "DIV2K_train_HR", tmp_path / "DIV2K" / "DIV2K_train_LR_bicubic" / "X2"
    hq.mkdir(parents=True)
    lq.mkdir(parents=True)
    write_image(hq / "0001.png", picture(20, 24))
    write_image(lq / "0001x2.png", picture(10, 12))
    assert [(pair.hq.name, pair.lq.name if pair.lq else None) for pair in find_training_set("DIV2K", tmp_path, 2)] == [
        ("0001.png", "0001x2.png")
    ]
    assert find_training_set("DIV2K", tmp_path, 3)[0].lq is None
    with pytest.raises(UserError, match=r"Flickr2K was not found below .*IRFORMER_DATA"):
        find_training_set("Flickr2K", tmp_path, 2)
    with pytest.raises(UserError, match="unknown training set DIV3K; known: DIV2K, Flickr2K, BSDS400, WED, Rain13K, sample"):
        find_training_set("DIV3K", tmp_path, 2)


def test_decoded_images_stay_within_their_budget(folder):
    images = FolderImages(pair_folders(folder, None, 2), 2, cache_bytes=75 * 61 * 3)
    for i in (0, 1, 2, 0):
        images.hq(i)
        assert sum(pixels.nbytes for pixels in images._cache.values()) <= max(75 * 61 * 3, images.hq(i).nbytes)
