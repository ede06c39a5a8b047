"""Training samples by their global index: what a sample looks like depends on (seed, index) alone.

Workers, processes and resumes decide only who computes a sample and when, never what it is; the state of the data pipeline is one integer.
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
    """Patches of a training set, endless: all that is random in sample `index` is drawn from (seed, index).

    That is image, flips and transposition, place, and what the degradation draws. A degradation of whole batches follows on the device,
    by `to_batch`.

    Args:
        images: the training set; says how its images are drawn.
        task: gives scale, channels and degradation.
        stages: side of the LQ patch of each sample, in pixels; the HQ patch is task.scale times larger.
        seed: of the run.

    Raises:
        UserError: an image is smaller than the HQ patch, or has no degraded file where the task cannot make one.
    """

    def __init__(self, images: TrainingImages, task: Task, stages: Stages, seed: int) -> None:
        self.images = images
        self.task = task
        self.stages = stages
        self.seed = seed
        require_patches(images, max(self.stages.patch_size) * task.scale)
        if not isinstance(task.degradation, PatchDegradation | DeviceDegradation) and not images.has_lq:
            raise UserError(
                f"the task {task.name} learns from pairs, and the training images have no degraded files: "
                "add data=folder data.path=CLEAN data.lq_path=DEGRADED, with images of the same names in both folders"
            )

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: hq [C, scale*p, scale*p] and lq [C, p, p], uint8, and its index; lq is left out where the device makes it."""
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

        def colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return pixels if gray is None else to_gray(pixels, gray)

        if on_disk is None and isinstance(degradation, PatchDegradation):
            rows, columns = (
                surroundings(start * scale, size * scale, side, degradation)
                for start, side in zip((top, left), image.shape[:2], strict=True)
            )
            around = colours(image[rows, columns])
            inner_top, inner_left = top * scale - rows.start, left * scale - columns.start
            hq = around[inner_top : inner_top + size * scale, inner_left : inner_left + size * scale]
            lq = degradation.degrade_patch(around, rng)
            inner_top, inner_left = inner_top // scale, inner_left // scale
            lq = lq[inner_top : inner_top + size, inner_left : inner_left + size]
            return {"hq": patch(hq), "index": torch.tensor(index), "lq": patch(lq)}
        hq = colours(image[top * scale : (top + size) * scale, left * scale : (left + size) * scale])
        sample = {"hq": patch(hq), "index": torch.tensor(index)}
        if on_disk is not None:
            sample["lq"] = patch(colours(on_disk[top : top + size, left : left + size]))
        return sample


def to_batch(batch: dict[str, Any], task: Task, seed: int) -> dict[str, Any]:
    """What a network trains on, on the device where the batch is: patches as floats in [0, 1], degraded if they are not yet.

    Args:
        batch: samples put together: `hq`, perhaps `lq`, uint8 [B, C, h, w]; `index` as a tensor or as numbers.
        task: its degradation makes `lq` where there is none.
        seed: of the run; what is drawn for a sample depends on (seed, index) alone.
    """
    floats: dict[str, Any] = {name: batch[name].float() / 255 for name in ("hq", "lq") if name in batch}
    if "lq" not in floats:
        assert isinstance(task.degradation, DeviceDegradation)
        # Apart from what the sample drew from (seed, index) itself.
        seeds = [int(np.random.SeedSequence((seed, int(index), 1)).generate_state(1, np.uint64)[0] >> 1) for index in batch["index"]]
        floats["lq"] = task.degradation.degrade_batch(floats["hq"], seeds)
    return {**batch, **floats}


class FirstSamples(Dataset[Sample]):
    """The first samples of a training set again and again: sample `index` is sample `index % count`.

    Args:
        samples: the training samples.
        count: how many of them; with a batch's size every step trains on the same batch.
    """

    def __init__(self, samples: TrainingSamples, count: int) -> None:
        self.samples = samples
        self.task = samples.task
        self.seed = samples.seed
        self.count = count

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, as the training set has it."""
        return self.samples[index % self.count]


class GlobalBatches(Sampler[list[int]]):
    """The sample indices of each batch that one process takes, step after step.

    Step t uses the samples t*G ... (t+1)*G - 1 of the global batch size G, dealt out to processes and to accumulated batches in order;
    where G changes from stage to stage, those that follow the samples of all steps before.

    Args:
        stages: global batch size G of each step.
        steps: optimizer steps of the whole run.
        start: steps already taken; their batches are not yielded again, but count in the length.
        accumulate: batches whose gradients one step adds up.
        rank: of this process.
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
    """What has to be cut out of a side of an image, so that `length` pixels from `start` on are degraded as in the whole image."""
    grid = degradation.grid
    first = max(0, start - degradation.margin) // grid * grid
    last = -(-(start + length + degradation.margin) // grid) * grid
    return slice(first, min(side, last))


def _orient(patch: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """One of the eight flips and transpositions of [H, W, C]; bit 0 mirrors, bit 1 turns upside down, bit 2 transposes."""
    if orientation & 1:
        patch = patch[:, ::-1]
    if orientation & 2:
        patch = patch[::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    return patch


def _to_tensor(patch: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1)))
