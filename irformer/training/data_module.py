"""The LightningDataModule: uint8 batches for training, whole images for validation."""

import math
from typing import Any

import cv2
import lightning
from torch.utils.data import DataLoader, Dataset

from irformer.data.samples import FirstSamples, GlobalBatches, TrainingSamples
from irformer.data.stages import Stages
from irformer.data.test_sets import TestPair, TestSet


class RestorationData(lightning.LightningDataModule):
    """Training samples by global index, and a test set for validation shared out over the processes.

    Args:
        samples: the training samples.
        validation: the images that validation restores.
        stages: samples of each optimizer step, over all processes and accumulated batches.
        workers: processes that read ahead, for each training process.
    """

    def __init__(self, samples: TrainingSamples | FirstSamples, validation: TestSet, stages: Stages, workers: int) -> None:
        super().__init__()
        self.samples = samples
        self.validation = validation
        self.stages = stages
        self.workers = workers

    def train_dataloader(self) -> DataLoader:
        """Batches {lq, hq} of uint8 [b, C, h, w], from the step that the trainer stands at.

        `irformer.training.sharing.share_batch` checks beforehand that each batch can be shared evenly.
        """
        trainer = self.trainer
        assert trainer is not None
        batches = GlobalBatches(
            stages=self.stages,
            steps=trainer.max_steps,
            start=trainer.global_step,
            accumulate=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(
            self.samples,
            batch_sampler=batches,
            num_workers=self.workers,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_start_worker,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers > 0 else None,
        )

    def val_dataloader(self) -> DataLoader:
        """Single images; each process takes every world_size-th, so that every image counts once.

        All processes take the same number of steps, since they wait for each other: those with one image less get None for it.
        """
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(_Share(self.validation, trainer.global_rank, trainer.world_size), batch_size=None, collate_fn=_as_it_is)


def _start_worker(_number: int) -> None:
    """A worker is one of several on as many cores: threads of its own would only get in each other's way. (PyTorch's are off already.)"""
    cv2.setNumThreads(0)


class _Share(Dataset[TestPair | None]):
    """Every world_size-th image from `rank` on, and None where the images do not go round."""

    def __init__(self, images: TestSet, rank: int, world_size: int) -> None:
        self.images = images
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.world_size)

    def __getitem__(self, i: int) -> TestPair | None:
        index = i * self.world_size + self.rank
        return self.images[index] if index < len(self.images) else None


def _as_it_is(pair: Any) -> Any:
    return pair
