"""Training samples by their global index: the content of a sample depends only on (seed, index).

Workers, processes and resuming determine where and when a sample is computed, but not its content. The state of the data pipeline is one
integer.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from irformer.data.sources import TrainingImages, require_patches
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.imaging.gray import to_gray
from irformer.tasks.degradations import DeviceDegradation, PatchDegradation
from irformer.tasks.task import Task

Sample = dict[str, Tensor]


class TrainingSamples(Dataset[Sample]):
    """An infinite sequence of training patches; all randomness of sample `index` derives from (seed, index).

    This covers the choice of image, flips and transposition, the position of the patch, and the random draws of the degradation. `to_batch`
    applies degradations of whole batches on the device.

    Args:
        images: the training set, which also defines how images are drawn.
        task: provides scale, channels and degradation.
        stages: defines the side of each LQ patch, in pixels; HQ patches are `task.scale` times larger.
        seed: seed of the run.

    Raises:
        UserError: an image is smaller than the HQ patch, or has no degraded file and the task cannot generate one.
    """

    def __init__(self, images: TrainingImages, task: Task, stages: Stages, seed: int) -> None:
        self.images = images
        self.task = task
        self.stages = stages
        self.seed = seed
        require_patches(images, max(self.stages.patch_size) * task.scale)
        if not isinstance(task.degradation, PatchDegradation | DeviceDegradation) and not images.has_lq:
            raise UserError(
                f"the task {task.name} trains on pairs, but the training images have no degraded files: "
                "add data=folder data.path=CLEAN data.lq_path=DEGRADED, with images of the same names in both folders"
            )

    def __getitem__(self, index: int) -> Sample:
        """Return hq [C, scale*p, scale*p] and lq [C, p, p], uint8, and the index; without lq if it is generated on the device."""
        rng = np.random.default_rng((self.seed, index))
        size = self.stages.patch_of(index)
        i = self.images.draw(rng)
        orientation = int(rng.integers(8))
        image, on_disk = self.images.hq(i), self.images.lq(i)
        degradation = self.task.degradation
        if on_disk is None and isinstance(degradation, PatchDegradation) and degradation.turned_first:
            image, orientation = _orient(image, orientation), 0
        scale = self.task.scale
        top, left = (int(rng.integers(side // scale - size + 1)) for side in image.shape[:2])
        gray = self.task.train_gray[int(rng.integers(len(self.task.train_gray)))] if self.task.channels == 1 else None

        def patch(pixels: NDArray[np.uint8]) -> Tensor:
            return _to_tensor(_orient(pixels, orientation))

        def convert(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return pixels if gray is None else to_gray(pixels, gray)

        if on_disk is None and isinstance(degradation, PatchDegradation):
            rows, columns = (
                surroundings(start * scale, size * scale, side, degradation)
                for start, side in zip((top, left), image.shape[:2], strict=True)
            )
            around = convert(image[rows, columns])
            inner_top, inner_left = top * scale - rows.start, left * scale - columns.start
            hq = around[inner_top : inner_top + size * scale, inner_left : inner_left + size * scale]
            lq = degradation.degrade_patch(around, rng)
            inner_top, inner_left = inner_top // scale, inner_left // scale
            lq = lq[inner_top : inner_top + size, inner_left : inner_left + size]
            return {"hq": patch(hq), "index": torch.tensor(index), "lq": patch(lq)}
        hq = convert(image[top * scale : (top + size) * scale, left * scale : (left + size) * scale])
        sample = {"hq": patch(hq), "index": torch.tensor(index)}
        if on_disk is not None:
            sample["lq"] = patch(convert(on_disk[top : top + size, left : left + size]))
        return sample


def to_batch(batch: dict[str, Any], task: Task, seed: int) -> dict[str, Any]:
    """Convert a batch to floats in [0, 1] on its device, and degrade it if it has no `lq`.

    Args:
        batch: collated samples: `hq` and optionally `lq`, uint8 [B, C, h, w]; `index` as a tensor or a sequence of integers.
        task: its degradation generates `lq` if it is missing.
        seed: seed of the run; the random draws for a sample depend only on (seed, index).
    """
    floats: dict[str, Any] = {name: batch[name].float() / 255 for name in ("hq", "lq") if name in batch}
    if "lq" not in floats:
        assert isinstance(task.degradation, DeviceDegradation)
        # Independent of the random draws of TrainingSamples, which are seeded by (seed, index).
        seeds = [int(np.random.SeedSequence((seed, int(index), 1)).generate_state(1, np.uint64)[0] >> 1) for index in batch["index"]]
        floats["lq"] = task.degradation.degrade_batch(floats["hq"], seeds)
    return {**batch, **floats}


class FirstSamples(Dataset[Sample]):
    """Repeats the first samples of a training set: sample `index` is sample `index % count`.

    Args:
        samples: the training samples.
        count: number of samples to repeat; if it equals the batch size, every step trains on the same batch.
    """

    def __init__(self, samples: TrainingSamples, count: int) -> None:
        self.samples = samples
        self.task = samples.task
        self.seed = samples.seed
        self.count = count

    def __getitem__(self, index: int) -> Sample:
        """Return training sample `index % count`."""
        return self.samples[index % self.count]


class GlobalBatches(Sampler[list[int]]):
    """Yields the sample indices of each batch of one process.

    With global batch size G, step t uses the samples t*G ... (t+1)*G - 1, distributed to accumulated batches and processes in order. If G
    changes between stages, a step uses the G samples that follow those of all previous steps.

    Args:
        stages: global batch size G of each step.
        steps: optimizer steps of the whole run.
        start: completed steps; their batches are not yielded again, but count in the length.
        accumulate: number of accumulated batches per step.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(self, stages: Stages, steps: int, start: int = 0, accumulate: int = 1, rank: int = 0, world_size: int = 1) -> None:
        self.stages = stages
        self.steps = steps
        self.start = start
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size
        assert all(size % (accumulate * world_size) == 0 for size in self.stages.batch_size)

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            share = self.stages.batch_at(step) // (self.accumulate * self.world_size)
            for part in range(self.accumulate):
                first = self.stages.first_sample(step) + (part * self.world_size + self.rank) * share
                yield list(range(first, first + share))


def surroundings(start: int, length: int, side: int, degradation: PatchDegradation) -> slice:
    """Return the range to crop along one axis so that `length` pixels from `start` degrade exactly as in the whole image."""
    grid = degradation.grid
    first = max(0, start - degradation.margin) // grid * grid
    last = -(-(start + length + degradation.margin) // grid) * grid
    return slice(first, min(side, last))


def _orient(patch: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply one of the eight flips and transpositions to [H, W, C]: bit 0 flips horizontally, bit 1 vertically, bit 2 transposes."""
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 2:
        patch = patch[::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    return patch


def _to_tensor(patch: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1)))
