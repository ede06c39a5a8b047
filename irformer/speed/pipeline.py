"""Throughput of training data from a packed store, sub-image files and whole image files, and memory use over many batches."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
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
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.speed_report import Section
from irformer.tasks.task import Task

HEIGHT, WIDTH = 1356, 2040  # size of most images of DIV2K
IMAGES = 4
SUB_IMAGE, SUB_STEP = 480, 240  # BasicSR's preparation of DIV2K
HQ_PATCH = 128
# Targets for the packed store on one core: pairs per second with stored LR, speedup over files, and JPEG samples per second.
_TARGET_PAIRS, _TARGET_OVER_SUB_IMAGES, _TARGET_OVER_FILES, _TARGET_JPEG = 3000, 20, 200, 1000


@dataclass(frozen=True)
class Rate:
    """Throughput of a data source on one core.

    Args:
        source: data source.
        task: name of the task.
        lq: source of the degraded patches.
        per_second: samples per second of CPU time.
    """

    source: str
    task: str
    lq: str
    per_second: float


class SyntheticSet:
    """Synthetic images with the size and file size of DIV2K's, written to a folder in all formats that are compared, for x2.

    Args:
        folder: output folder.
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
        """Return the packed store, with or without its degraded images."""
        source = folder_source(self.folder / "HR", self.folder / "LR" if lq else None, scale)
        return open_source(source, self.folder / "packed", scale, 0)[0]

    def files(self, ending: str = "", cache_bytes: int = 0) -> TrainingImages:
        """Return the image files, or with `_sub` the sub-images; decoded images are only cached if `cache_bytes` is above 0."""
        return FolderImages(pair_folders(self.folder / f"HR{ending}", self.folder / f"LR{ending}", 2), 2, cache_bytes)


def photograph(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Generate an image [height, width, 3] whose PNG is about as large as a photograph's: structure at all scales and sensor noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for cell in (256, 64, 16, 4):
        coarse = rng.normal(0, 1, (-(-height // cell) + 1, -(-width // cell) + 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * (4 * cell**0.4)
    image += rng.normal(0, 4, image.shape).astype(np.float32)
    return image.round().clip(0, 255).astype(np.uint8)


def data_section(rates: Sequence[Rate]) -> Section:
    """Return the table and the verdicts of `data_rates`."""
    store, sub_images, files, *_ = rates
    rows: list[list[Cell]] = []
    for rate in rates:
        same_work = rate.task == store.task and rate.lq != "made on the fly" and rate is not store
        speedup = f"{store.per_second / rate.per_second:,.0f}x" if same_work else None
        rows.append([rate.source, rate.task, rate.lq, f"{rate.per_second:,.0f}", Number(1000 / rate.per_second, 3), speedup])
    checks = [
        ("pairs per second from the store", store.per_second, _TARGET_PAIRS),
        ("speedup over sub-image files", store.per_second / sub_images.per_second, _TARGET_OVER_SUB_IMAGES),
        ("speedup over whole files", store.per_second / files.per_second, _TARGET_OVER_FILES),
        *((f"{rate.task} samples per second", rate.per_second, _TARGET_JPEG) for rate in rates if rate.task.startswith("jpeg")),
    ]
    lines = [
        f"{name}: {found:,.0f}, target {target:,}: {'reached' if found >= target else 'NOT REACHED'}" for name, found, target in checks
    ]
    header = ["source", "task", "LQ", "per second", "ms each", "speedup of the store"]
    title = f"Training samples (HQ {HQ_PATCH}x{HQ_PATCH}) per second of one core's CPU time"
    return Section("data", "Reading training data", [ResultTable(title, header, rows)], lines, rates)


def data_rates(data: SyntheticSet, sr: Task, others: list[Task], seconds: float) -> list[Rate]:
    """Measure the throughput of one core.

    Args:
        data: the images.
        sr: super-resolution x2.
        others: other tasks, measured from the packed store.
        seconds: minimum CPU time per measurement.

    Returns:
        The rates: of the packed store with LR, of sub-images and of whole files, then those with LQ made on the fly.
    """
    rates = []
    with _one_core():
        for source, lq, images in (
            ("packed store", "packed", data.packed(2, lq=True)),
            (f"sub-image PNG files, {SUB_IMAGE}x{SUB_IMAGE}", "files", data.files("_sub")),
            (f"whole PNG files, {WIDTH}x{HEIGHT}", "files", data.files()),
            ("packed store", "made on the fly", data.packed(2, lq=False)),
        ):
            samples = TrainingSamples(images, sr, Stages.constant(HQ_PATCH // 2, 16), seed=0)
            rates.append(Rate(source, sr.name, lq, _per_second(samples, seconds)))
        for task in others:
            samples = TrainingSamples(data.packed(task.scale, lq=False), task, Stages.constant(HQ_PATCH // task.scale, 16), seed=0)
            rates.append(Rate("packed store", task.name, "made on the fly", _per_second(samples, seconds)))
    return rates


def _per_second(samples: TrainingSamples, seconds: float) -> float:
    """Measure samples per second of this process's CPU time, which is independent of other processes on the machine."""
    for index in range(3):
        samples[index]
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds or count < 10:
        samples[count]
        count += 1
    return count / spent


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Use a single thread, as in a data-loading worker."""
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
    """Read many batches as in training, and report the memory of this process and its workers ten times.

    Args:
        images: the training set.
        sr: super-resolution x2.
        batches: number of batches of 16 samples to read.
        workers: number of data-loading processes.
        on_memory: called with the number of batches read, the private memory of each process (MiB), and the memory of mapped files over
            all processes (MiB), which the system can reclaim.

    Raises:
        UserError: the operating system is not Linux, so /proc is not available.
    """
    if not Path("/proc/self/status").is_file():
        raise UserError("speed.py data-memory reads /proc, which only Linux provides")
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
    """Return a field of /proc/PID/status in MiB."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
