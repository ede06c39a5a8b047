"""Measuring a restorer on a test set with the time and memory of each image, and counting outputs that are not finite."""

import time
from collections.abc import Callable

import torch
from numpy.typing import NDArray

from irformer.core.memory import peak_memory, restart_peak
from irformer.data.test_sets import TestSet
from irformer.evaluation.evaluate import evaluate_image
from irformer.evaluation.restorers import NonFiniteOutputError, Restorer
from irformer.evaluation.results import ImageCost, SetResult
from irformer.evaluation.tiling import TiledRestorer

OnImage = Callable[[str, NDArray | None], None]
"""Called with the name of each finished image and the restored image [H, W, C]; None if it is not finite."""


class CostedRestorer:
    """Restores images like another restorer, and records what the last image took.

    Args:
        restorer: the restorer.
        device: the device that it computes on.
    """

    def __init__(self, restorer: Restorer, device: torch.device | str = "cpu") -> None:
        self.restorer = restorer
        self.padding = restorer.padding
        self.device = torch.device(device)
        self.seconds = 0.0
        self.peak_memory: int | None = None
        self.tile: int | None = None

    def __call__(self, lq: NDArray) -> NDArray:
        """Restore an image; see `irformer.evaluation.restorers.Restorer`."""
        self.tile = None
        before = self._restart_peak()
        started = time.perf_counter()
        try:
            if isinstance(self.restorer, TiledRestorer):
                restored, self.tile = self.restorer.restore(lq)
                return restored
            return self.restorer(lq)
        finally:
            self.seconds = time.perf_counter() - started  # the output has been copied to the host, so a GPU has finished
            self.peak_memory = None if before is None else max(0, self._peak() - before)

    def _restart_peak(self) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        return restart_peak() if self.device.type == "cpu" else None

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_memory()


def measure_set(restorer: Restorer, test_set: TestSet, device: torch.device | str = "cpu", on_image: OnImage | None = None) -> SetResult:
    """Restore and evaluate every image of a test set like `irformer.evaluation.evaluate.evaluate`, with the costs of each.

    An image with values that are not finite has no metrics; `SetResult.non_finite` has the count of such values.

    Args:
        restorer: maps degraded to restored images.
        test_set: the images, with their task and its protocol.
        device: the device that the restorer computes on.
        on_image: called with each finished image.
    """
    result = SetResult(test_set.name, test_set.lq_source, test_set.remarks)
    costed = CostedRestorer(restorer, device)
    for pair in test_set:
        restored = None
        try:
            result.per_image[pair.name], restored = evaluate_image(costed, pair, test_set.task)
        except NonFiniteOutputError as error:
            result.non_finite[pair.name] = error.count
        height, width = pair.hq.shape[:2]
        result.costs[pair.name] = ImageCost(height, width, costed.seconds, costed.peak_memory, costed.tile)
        if on_image:
            on_image(pair.name, restored)
    return result
