"""Sharing the images of a test set among devices: each process restores some of them, and the numbers are those of a single process."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from numpy.typing import NDArray

from irformer.core.memory import memory_limit
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.evaluation.image_costs import OnImage, measure_set
from irformer.evaluation.reduced_precision import joined_records, with_precision_record
from irformer.evaluation.restorers import NetworkRestorer, Restorer
from irformer.evaluation.results import SetResult
from irformer.evaluation.tiling import TiledRestorer
from irformer.precision.reduced import PrecisionRecord, Reduced


@dataclass(frozen=True)
class Work:
    """A restorer on a test set.

    Args:
        restorer: the restorer.
        test_set: the test set.
        reduced: the network of the restorer in a precision other than float32, or None.
    """

    restorer: Restorer
    test_set: TestSet
    reduced: Reduced | None = None

    def measure(self, device: torch.device, on_image: OnImage | None = None) -> tuple[SetResult, PrecisionRecord | None]:
        """Measure the test set in this process, with a record of the precision."""
        if self.reduced is not None:
            self.reduced.reset()
        with memory_limit():
            result = measure_set(self.restorer, self.test_set, device, on_image)
        return result, None if self.reduced is None else self.reduced.record()


class OneDevice:
    """Measures in this process.

    Args:
        device: the device of the restorers.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> "OneDevice":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, work: Work, on_image: OnImage) -> SetResult:
        """Measure a restorer on a test set; `on_image` is called with each finished image."""
        result, record = work.measure(self.device, on_image)
        return result if record is None else with_precision_record(result, record)


class SeveralDevices:
    """Measures in a process for each device; images are given out one by one, large ones first.

    Args:
        devices: the devices; the CPU may be listed several times.
    """

    def __init__(self, devices: list[torch.device]) -> None:
        self.devices = devices
        self._folder = tempfile.TemporaryDirectory(prefix="irformer-")
        context = multiprocessing.get_context("spawn")
        places: Queue[str] = context.Queue()
        for device in devices:
            places.put(str(device))
        self._pool = ProcessPoolExecutor(len(devices), context, _start_worker, (places, torch.get_num_threads()))

    def __enter__(self) -> "SeveralDevices":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def measure(self, work: Work, on_image: OnImage) -> SetResult:
        """Measure a restorer on a test set; `on_image` is called with each finished image, in no order.

        Raises:
            UserError: a process was killed.
        """
        file = Path(self._folder.name) / "work"
        file.write_bytes(pickle.dumps(work))
        sizes = work.test_set.lq_pixels
        order = sorted(range(len(work.test_set)), key=lambda i: -sizes[i])
        stamp = file.stat().st_mtime_ns
        futures: dict[Future[_Part], int] = {self._pool.submit(_measure_one, str(file), stamp, i): i for i in order}
        parts: dict[int, _Part] = {}
        try:
            for future in as_completed(futures):
                part = future.result()
                parts[futures[future]] = part
                on_image(part.name, part.restored)
        except BrokenProcessPool:
            raise UserError(
                f"devices={len(self.devices)}: a process that restores images was killed, probably for lack of memory; use fewer devices"
            ) from None
        return self._joined(work.test_set, [parts[i] for i in range(len(parts))])

    def _joined(self, test_set: TestSet, parts: list["_Part"]) -> SetResult:
        joined = SetResult(test_set.name, test_set.lq_source, test_set.remarks)
        for part in parts:
            joined.per_image.update(part.result.per_image)
            joined.non_finite.update(part.result.non_finite)
            joined.costs.update(part.result.costs)
        records = [part.record for part in parts if part.record is not None]
        return with_precision_record(joined, joined_records(records)) if records else joined


@dataclass(frozen=True)
class _Part:
    """The result of one image, and the restored image."""

    name: str
    result: SetResult
    record: PrecisionRecord | None
    restored: NDArray[Any] | None


_place = torch.device("cpu")
_loaded: tuple[tuple[str, int], Work] | None = None


def _start_worker(places: "Queue[str]", threads: int) -> None:
    """Take a device. Every process computes with as many threads as a single one, because their number changes the last bits."""
    global _place
    _place = torch.device(places.get())
    torch.set_num_threads(threads)


def _measure_one(file: str, stamp: int, i: int) -> _Part:
    global _loaded
    if _loaded is None or _loaded[0] != (file, stamp):
        _loaded = (file, stamp), _on_device(pickle.loads(Path(file).read_bytes()), _place)
    whole = _loaded[1]
    kept: dict[str, NDArray[Any] | None] = {}
    keep: Callable[[str, NDArray[Any] | None], None] = kept.__setitem__
    result, record = replace(whole, test_set=whole.test_set.subset([i])).measure(_place, keep)
    ((name, restored),) = kept.items()
    return _Part(name, result, record, restored)


def _on_device(work: Work, device: torch.device) -> Work:
    whole = work.restorer.restorer if isinstance(work.restorer, TiledRestorer) else work.restorer
    if isinstance(whole, NetworkRestorer):
        whole.network.to(device)
        whole.device = device
    return work
