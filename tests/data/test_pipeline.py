"""The batches of a run: the same bytes for any number of workers and processes, after a resume, from a store or from files."""

import logging

import pytest
import torch
from conftest import picture
from test_samples import super_resolution
from torch.utils.data import DataLoader

from irformer.data.mixtures import JoinedImages, chances
from irformer.data.packing import folder_source, open_source, pack_set
from irformer.data.samples import GlobalBatches, TrainingSamples
from irformer.data.sources import DecodingClock, FolderImages, pair_folders
from irformer.data.stages import Stages
from irformer.imaging.images import write_image

STEPS, BATCH = 6, 4
STAGES = Stages.constant(16, BATCH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for i, size in enumerate([(64, 96), (75, 61), (50, 49), (120, 60)]):
        write_image(folder / f"{i}.png", picture(*size, seed=i))
    return folder


def samples(folder, packed=None) -> TrainingSamples:
    images, _ = open_source(folder_source(folder, None, 2), packed, 2, 1 << 20)
    return TrainingSamples(JoinedImages([images], chances([images], None, "area")), super_resolution(), STAGES, seed=3)


def run(dataset, workers: int = 0, **sampler: int) -> list[dict[str, torch.Tensor]]:
    return list(DataLoader(dataset, batch_sampler=GlobalBatches(STAGES, STEPS, **sampler), num_workers=workers))


def same(some, others) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(some, others, strict=True) for name in ("lq", "hq"))


@pytest.fixture(scope="module")
def batches(folder):
    """What one process without workers trains on."""
    whole = run(samples(folder))
    assert len(whole) == STEPS
    assert not same(whole[:1], whole[1:2])
    return whole


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers(folder, batches, workers):
    assert same(batches, run(samples(folder), workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_and_accumulated_batches(folder, batches, workers):
    first, second = (run(samples(folder), workers, rank=rank, world_size=2) for rank in (0, 1))
    joined = [{name: torch.cat([a[name], b[name]]) for name in ("lq", "hq")} for a, b in zip(first, second, strict=True)]
    assert same(batches, joined)
    halves = run(samples(folder), workers, accumulate=2)
    joined = [{name: torch.cat([a[name], b[name]]) for name in ("lq", "hq")} for a, b in zip(halves[::2], halves[1::2], strict=True)]
    assert same(batches, joined)


@pytest.mark.parametrize("workers", [0, 2])
def test_after_a_resume(folder, batches, workers):
    assert same(batches[4:], run(samples(folder), workers, start=4))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_from_the_packed_store(folder, batches, tmp_path, context):
    pack_set(str(folder), tmp_path, None, None, lambda *_: None)
    dataset = samples(folder, tmp_path / "packed")
    assert same(batches, run(dataset))
    loader = DataLoader(dataset, batch_sampler=GlobalBatches(STAGES, STEPS), num_workers=1, multiprocessing_context=context)
    assert same(batches, loader)


def test_the_share_of_decoding_is_told_once_with_the_cure(folder, caplog, monkeypatch):
    monkeypatch.setattr(DecodingClock, "SAMPLES", 5)
    images = FolderImages(pair_folders(folder, None, 2), 2, cache_bytes=0, pack="BSDS400")
    dataset = TrainingSamples(images, super_resolution(), STAGES, seed=0)
    with caplog.at_level(logging.INFO, "irformer"):
        for index in range(5):
            dataset[index]
        assert not caplog.messages
        for index in range(5, 20):
            dataset[index]
    assert len(caplog.messages) == 1
    assert "to avoid this, run python scripts/prepare_data.py pack BSDS400" in caplog.messages[0]
    share = int(caplog.messages[0].split(" took ")[1].split(" %")[0])
    assert 0 < share <= 100
