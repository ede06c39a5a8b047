"""The LightningDataModule: batches of uint8 patches for training, whole images for validation."""

import math
from typing import Any

import cv2
import lightning
from torch.utils.data import DataLoader, Dataset

from irformer.data.samples import FirstSamples, GlobalBatches, TrainingSamples
from irformer.data.stages import Stages
from irformer.data.test_sets import TestPair, TestSet


class RestorationData(lightning.LightningDataModule):
    """Data loaders for training samples, in order of their global index, and for a validation set split among the processes.

    Args:
        samples: the training samples.
        validation: the validation set.
        stages: global batch size of each optimizer step.
        workers: data loading workers of each training process.
    """

    def __init__(self, samples: TrainingSamples | FirstSamples, validation: TestSet, stages: Stages, workers: int) -> None:
        super().__init__()
        self.samples = samples
        self.validation = validation
        self.stages = stages
        self.workers = workers

    def train_dataloader(self) -> DataLoader:
        """Return a loader of batches {lq, hq}, uint8 [b, C, h, w], starting at the trainer's current step.

        `irformer.training.sharing.share_batch` checks beforehand that each batch can be split evenly.
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
        """Return a loader of single images; each process receives every world_size-th image, so every image counts once.

        All processes take the same number of steps, because they synchronize: those with one image less receive None instead.
        """
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(_Share(self.validation, trainer.global_rank, trainer.world_size), batch_size=None, collate_fn=_identity)


def _start_worker(_number: int) -> None:
    """Disable OpenCV's threads in a worker, because workers already use all cores; PyTorch's threads are already disabled."""
    cv2.setNumThreads(0)


class _Share(Dataset[TestPair | None]):
    """Every world_size-th image starting at `rank`, padded with None to equal length on all processes."""

    def __init__(self, images: TestSet, rank: int, world_size: int) -> None:
        self.images = images
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.world_size)

    def __getitem__(self, i: int) -> TestPair | None:
        index = i * self.world_size + self.rank
        return self.images[index] if index < len(self.images) else None


def _identity(pair: Any) -> Any:
    return pair
