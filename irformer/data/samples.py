"""Training samples by their global index: what a sample looks like depends on (seed, index) alone.

Workers, processes and resumes decide only who computes a sample and when, never what it is; the state of the data pipeline is one integer.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from irformer.data.sources import TrainingImages, require_patches
from irformer.tasks import Task

Sample = dict[str, Tensor]


class TrainingSamples(Dataset[Sample]):
    """Patches of a training set, endless: image, place, flips and transposition of sample `index` are drawn from (seed, index).

    Args:
        images: the training set; says how its images are drawn.
        task: gives the scale and the degradation.
        patch_size: side of the LQ patch in pixels; the HQ patch is task.scale times larger.
        seed: of the run.

    Raises:
        UserError: an image is smaller than the HQ patch.
    """

    def __init__(self, images: TrainingImages, task: Task, patch_size: int, seed: int) -> None:
        self.images = images
        self.task = task
        self.patch_size = patch_size
        self.seed = seed
        require_patches(images, patch_size * task.scale)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: lq [C, p, p] and hq [C, scale*p, scale*p], uint8."""
        rng = np.random.default_rng((self.seed, index))
        i = self.images.draw(rng)
        height, width = (side // self.task.scale for side in self.images.size(i))
        top = int(rng.integers(height - self.patch_size + 1))
        left = int(rng.integers(width - self.patch_size + 1))
        hq, lq = self._cut(i, top, left, rng)
        orientation = int(rng.integers(8))
        return {"lq": _to_tensor(_orient(lq, orientation)), "hq": _to_tensor(_orient(hq, orientation))}

    def _cut(self, i: int, top: int, left: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """HQ and LQ patch of image i at a place in LQ pixels; LQ from disk, or degraded from as much of the image as it depends on."""
        scale, size = self.task.scale, self.patch_size
        image = self.images.hq(i)
        rows, columns = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
        hq = image[rows, columns]
        on_disk = self.images.lq(i)
        if on_disk is not None:
            return hq, on_disk[top : top + size, left : left + size]
        height, width = self.images.size(i)
        margin = self.task.degradation.margin
        first_row, first_column = max(0, rows.start - margin), max(0, columns.start - margin)
        around = image[first_row : min(height, rows.stop + margin), first_column : min(width, columns.stop + margin)]
        lq = self.task.degradation(around, rng)
        inner_top, inner_left = top - first_row // scale, left - first_column // scale
        return hq, lq[inner_top : inner_top + size, inner_left : inner_left + size]


class GlobalBatches(Sampler[list[int]]):
    """The sample indices of each batch that one process takes, step after step.

    Step t uses the samples t*G ... (t+1)*G - 1 of the global batch size G, dealt out to processes and to accumulated batches in order.

    Args:
        batch_size: global batch size G.
        steps: optimizer steps of the whole run.
        start: steps already taken; their batches are not yielded again, but count in the length.
        accumulate: batches whose gradients one step adds up.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, batch_size: int, steps: int, start: int = 0, accumulate: int = 1, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size = batch_size
        self.steps = steps
        self.start = start
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size
        self.share = batch_size // (accumulate * world_size)
        assert self.share * accumulate * world_size == batch_size

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            for part in range(self.accumulate):
                first = step * self.batch_size + (part * self.world_size + self.rank) * self.share
                yield list(range(first, first + self.share))


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
