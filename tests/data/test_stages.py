"""Progressive patches and batches: which samples a step takes, and how large they are."""

import cv2
import numpy as np
import pytest
import torch
from conftest import picture
from test_samples import super_resolution
from torch.utils.data import DataLoader

from irformer.data.mirrored import MirroredImages
from irformer.data.samples import GlobalBatches, TrainingSamples
from irformer.data.sources import FolderImages, pair_folders
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.imaging.images import write_image

# Three stages: steps 0-1 take samples 0-7 and 8-15, steps 2-4 take 4 each up to 27, then 2 each.
STAGES = Stages(steps=[2, 3, 1], patch_size=[8, 12, 20], batch_size=[8, 4, 2])


@pytest.fixture
def samples(tmp_path) -> TrainingSamples:
    for i in range(3):
        write_image(tmp_path / f"{i}.png", picture(50, 44 + i, seed=i))
    return TrainingSamples(FolderImages(pair_folders(tmp_path, None, 2), 2), super_resolution(2), STAGES, seed=0)


def test_restormers_stages_by_step_and_sample():
    stages = Stages([92_000, 64_000, 48_000, 36_000, 36_000, 24_000], [128, 160, 192, 256, 320, 384], [64, 40, 32, 16, 8, 8])
    assert [stages.batch_at(step) for step in (0, 91_999, 92_000, 155_999, 156_000, 204_000, 240_000, 276_000, 400_000)] == [
        64, 64, 40, 40, 32, 16, 8, 8, 8,
    ]  # fmt: skip
    seen = 92_000 * 64 + 64_000 * 40 + 48_000 * 32
    assert stages.first_sample(204_000) == seen == 9_984_000
    assert [stages.patch_of(index) for index in (0, 92_000 * 64 - 1, 92_000 * 64, seen - 1, seen)] == [128, 128, 160, 192, 256]
    assert stages.first_sample(300_000) == seen + 36_000 * 16 + 36_000 * 8 + 24_000 * 8


def test_every_sample_is_taken_once_and_in_order():
    batches = list(GlobalBatches(STAGES, 7))
    assert [len(batch) for batch in batches] == [8, 8, 4, 4, 4, 2, 2]
    assert [index for batch in batches for index in batch] == list(range(32))


def test_all_patches_of_a_batch_have_the_size_of_its_stage(samples):
    sizes = [(len(batch["lq"]), batch["lq"].shape[-1], batch["hq"].shape[-1]) for batch in DataLoader(samples, batch_sampler=_batches())]
    assert sizes == [(8, 8, 16)] * 2 + [(4, 12, 24)] * 3 + [(2, 20, 40)] * 2


@pytest.mark.parametrize("start", range(8))
def test_a_resumed_sampler_goes_on_within_a_stage_and_at_its_edges(start):
    assert list(GlobalBatches(STAGES, 7, start=start)) == list(GlobalBatches(STAGES, 7))[start:]


def test_workers_and_processes_change_no_sample(samples):
    alone = list(DataLoader(samples, batch_sampler=_batches()))
    shared = list(DataLoader(samples, batch_sampler=_batches(), num_workers=2))
    ranks = [list(DataLoader(samples, batch_sampler=_batches(rank=rank, world_size=2))) for rank in range(2)]
    for step, batch in enumerate(alone):
        for name in ("lq", "hq"):
            assert torch.equal(batch[name], shared[step][name])
            assert torch.equal(batch[name], torch.cat([ranks[0][step][name], ranks[1][step][name]]))


def test_accumulated_batches_deal_out_the_step():
    parts = list(GlobalBatches(STAGES, 7, accumulate=2))
    whole = list(GlobalBatches(STAGES, 7))
    assert [parts[2 * step] + parts[2 * step + 1] for step in range(7)] == whole


def test_the_largest_patch_must_fit_every_image(tmp_path):
    write_image(tmp_path / "small.png", picture(38, 60))
    images = FolderImages(pair_folders(tmp_path, None, 2), 2)
    with pytest.raises(UserError, match=r"small\.png: 60x38 pixels, smaller than the training patch of 40x40"):
        TrainingSamples(images, super_resolution(2), STAGES, seed=0)


def test_stages_that_cannot_be_are_told():
    with pytest.raises(UserError, match="lists of equal length, with one number per stage, found 2 steps, 3 patch_size, 2 batch_size"):
        Stages([1, 2], [8, 8, 8], [4, 4])
    with pytest.raises(UserError, match=r"progressive\.batch_size=\[4, 0\]: expected whole numbers, 1 or more"):
        Stages([1, 2], [8, 8], [4, 0])


def _batches(rank: int = 0, world_size: int = 1) -> GlobalBatches:
    return GlobalBatches(STAGES, 7, rank=rank, world_size=world_size)


def test_small_images_are_continued_by_their_mirror_image(tmp_path):
    """As cv2.copyMakeBorder with BORDER_REFLECT, which Restormer's loader calls; larger images stay as they are."""
    images = {"a": picture(38, 60), "b": picture(17, 30), "c": picture(64, 70)}
    for name, image in images.items():
        write_image(tmp_path / f"{name}.png", image)
    mirrored = MirroredImages(FolderImages(pair_folders(tmp_path, None, 2), 2), side=40)
    assert [mirrored.size(i) for i in range(3)] == [(40, 60), (40, 40), (64, 70)]
    assert (mirrored.hq(0) == cv2.copyMakeBorder(images["a"], 0, 2, 0, 0, cv2.BORDER_REFLECT)).all()
    assert (mirrored.hq(1) == cv2.copyMakeBorder(images["b"][:16], 0, 24, 0, 10, cv2.BORDER_REFLECT)).all()
    assert (mirrored.hq(2) == images["c"]).all()
    samples = TrainingSamples(mirrored, super_resolution(2), STAGES, seed=0)
    assert {samples[index]["hq"].shape[-1] for index in range(30)} == {16, 24, 40}


def test_small_pairs_are_continued_alike(tmp_path):
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    ramp = np.arange(18 * 22, dtype=np.uint16).reshape(18, 22, 1).repeat(3, 2) % 251
    write_image(tmp_path / "LR" / "0.png", ramp.astype(np.uint8))
    write_image(tmp_path / "HR" / "0.png", ramp.astype(np.uint8).repeat(2, 0).repeat(2, 1))
    mirrored = MirroredImages(FolderImages(pair_folders(tmp_path / "HR", tmp_path / "LR", 2), 2), side=60)
    lq = mirrored.lq(0)
    assert lq is not None
    assert lq.shape == (30, 30, 3)
    assert (mirrored.hq(0) == lq.repeat(2, 0).repeat(2, 1)).all()
