"""Training samples a second from a packed store, from sub-image files and from whole image files; memory over many batches."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from irformer.data.packing import folder_source, open_source, pack_set
from irformer.data.samples import GlobalBatches, TrainingSamples
from irformer.data.sources import FolderImages, TrainingImages, pair_folders
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.imaging.resize import imresize
from irformer.tasks.task import Task

HEIGHT, WIDTH = 1356, 2040  # of most images of DIV2K
IMAGES = 4
SUB_IMAGE, SUB_STEP = 480, 240  # BasicSR's preparation of DIV2K
HQ_PATCH = 128


@dataclass(frozen=True)
class Rate:
    """How many samples one core makes in a second of its time.

    Args:
        source: where they come from.
        task: name of the task.
        lq: how the degraded patch comes about.
        per_second: samples.
    """

    source: str
    task: str
    lq: str
    per_second: float


class SyntheticSet:
    """Images of the size and the file size of DIV2K's, written to a folder in all the ways that are compared, for x2.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("HR", "LR", "HR_sub", "LR_sub"):
            (folder / name).mkdir()
        for i in range(IMAGES):
            hq = photograph(HEIGHT, WIDTH, i)
            lq = imresize(hq, HEIGHT // 2, WIDTH // 2)
            write_image(folder / "HR" / f"{i}.png", hq)
            write_image(folder / "LR" / f"{i}x2.png", lq)
            self._write_sub_images(i, hq, lq)
        pack_set(str(folder / "HR"), folder, folder / "packed", folder / "LR", lambda _done, _total, _name: None)

    def _write_sub_images(self, i: int, hq: NDArray[np.uint8], lq: NDArray[np.uint8]) -> None:
        places = [(y, x) for y in range(0, HEIGHT - SUB_IMAGE + 1, SUB_STEP) for x in range(0, WIDTH - SUB_IMAGE + 1, SUB_STEP)]
        for number, (y, x) in enumerate(places):
            write_image(self.folder / "HR_sub" / f"{i}_{number}.png", hq[y : y + SUB_IMAGE, x : x + SUB_IMAGE])
            small = lq[y // 2 : (y + SUB_IMAGE) // 2, x // 2 : (x + SUB_IMAGE) // 2]
            write_image(self.folder / "LR_sub" / f"{i}_{number}x2.png", small)

    def packed(self, scale: int, lq: bool) -> TrainingImages:
        """The packed store, with the degraded images in it or without."""
        source = folder_source(self.folder / "HR", self.folder / "LR" if lq else None, scale)
        return open_source(source, self.folder / "packed", scale, 0)[0]

    def files(self, ending: str = "", cache_bytes: int = 0) -> TrainingImages:
        """The image files, or with `_sub` the sub-images; nothing is kept in memory unless a budget says so."""
        return FolderImages(pair_folders(self.folder / f"HR{ending}", self.folder / f"LR{ending}", 2), 2, cache_bytes)


def photograph(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A picture [height, width, 3] that a PNG stores in about the bytes of a photograph: structure of all sizes, and a sensor's noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for cell in (256, 64, 16, 4):
        coarse = rng.normal(0, 1, (-(-height // cell) + 1, -(-width // cell) + 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * (4 * cell**0.4)
    image += rng.normal(0, 4, image.shape).astype(np.float32)
    return image.round().clip(0, 255).astype(np.uint8)


def data_rates(data: SyntheticSet, sr: Task, others: list[Task], seconds: float, on_rate: Callable[[Rate], None]) -> None:
    """Measure how many samples one core makes.

    Args:
        data: the images.
        sr: super-resolution x2.
        others: further tasks, from the packed store.
        seconds: of this process's time that each measurement takes, at least.
        on_rate: called with each result: the store with LR in it first, then the others.
    """
    with _one_core():
        for source, lq, images in (
            ("packed store", "packed", data.packed(2, lq=True)),
            (f"sub-image PNG files, {SUB_IMAGE}x{SUB_IMAGE}", "files", data.files("_sub")),
            (f"whole PNG files, {WIDTH}x{HEIGHT}", "files", data.files()),
            ("packed store", "made on the fly", data.packed(2, lq=False)),
        ):
            samples = TrainingSamples(images, sr, Stages.constant(HQ_PATCH // 2, 16), seed=0)
            on_rate(Rate(source, sr.name, lq, _per_second(samples, seconds)))
        for task in others:
            samples = TrainingSamples(data.packed(task.scale, lq=False), task, Stages.constant(HQ_PATCH // task.scale, 16), seed=0)
            on_rate(Rate("packed store", task.name, "made on the fly", _per_second(samples, seconds)))


def _per_second(samples: TrainingSamples, seconds: float) -> float:
    """Samples in a second of this process's own time, which other processes on the machine do not lengthen."""
    for index in range(3):
        samples[index]
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds or count < 10:
        samples[count]
        count += 1
    return count / spent


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """As in a worker: no threads but one."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def memory_over_batches(
    images: TrainingImages, sr: Task, batches: int, workers: int, on_memory: Callable[[int, list[float], float], None]
) -> None:
    """Read many batches as a training does, and look at the memory of this process and its workers ten times on the way.

    Args:
        images: the training set.
        sr: super-resolution x2.
        batches: to be read, of 16 samples.
        workers: that read.
        on_memory: called with the batches read, the memory of each process that is its own (MiB), and that of mapped files (MiB, all
            processes; the system takes it back when it needs it).

    Raises:
        UserError: not on Linux, whose accounts are read.
    """
    if not Path("/proc/self/status").is_file():
        raise UserError("speed.py memory reads /proc, which only Linux has")
    loader = DataLoader(
        TrainingSamples(images, sr, Stages.constant(HQ_PATCH // 2, 16), seed=0),
        batch_sampler=GlobalBatches(Stages.constant(HQ_PATCH // 2, 16), batches),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for read, _ in enumerate(loader, start=1):
        if read % max(1, batches // 10) == 0:
            processes = [Path("/proc/self"), *(Path("/proc", str(child.pid)) for child in multiprocessing.active_children())]
            own = [_status(process, "RssAnon") for process in processes]
            on_memory(read, own, sum(_status(process, "RssFile") for process in processes))


def _status(process: Path, field: str) -> float:
    """A field of a process's account in MiB."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
