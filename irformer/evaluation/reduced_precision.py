"""Measuring a network in a precision other than float32: calibration images, and non-finite values that are counted."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.data.sources import ImagePair
from irformer.data.test_sets import TestSet
from irformer.datasets.catalog import sample_photos
from irformer.evaluation.evaluate import SetResult, evaluate_sets
from irformer.evaluation.restorers import NetworkRestorer, to_tensor
from irformer.precision.quantization import Calibration
from irformer.precision.reduced import PrecisionRecord, Reduced
from irformer.tasks.degradations import FromFiles
from irformer.tasks.task import Padding, Task

# Photos that come with scikit-image and belong to no test set, not even `sample`.
_PHOTOS = ("coffee.png", "rocket.jpg", "ihc.png", "motorcycle_left.png")
_SIDE = 128


def calibration_images(task: Task, test_sets: Sequence[TestSet] = ()) -> Calibration:
    """Return the images on which the ranges of activations are calibrated: the centers of four photos that come with scikit-image.

    The task degrades them as test images. If it cannot (deraining), they are the centers of the first four images of the first test set.

    Args:
        task: the task.
        test_sets: the test sets to be measured.

    Raises:
        UserError: an image cannot be read.
    """
    if isinstance(task.degradation, FromFiles) and test_sets:
        source, prefix = test_sets[0].subset(range(min(len(_PHOTOS), len(test_sets[0])))), f"{test_sets[0].name}/"
    else:
        source, prefix = TestSet("calibration", [ImagePair(path.stem, path) for path in sample_photos(_PHOTOS)], task), ""
    names, images = [], []
    for pair in source:
        height, width = (min(_SIDE, side) for side in pair.lq.shape[:2])
        top, left = (pair.lq.shape[0] - height) // 2, (pair.lq.shape[1] - width) // 2
        names.append(f"{prefix}{pair.name}, {width}x{height} LQ pixels at the center")
        images.append(to_tensor(pair.lq[top : top + height, left : left + width]))
    return Calibration(tuple(names), tuple(images))


class CountingRestorer(NetworkRestorer):
    """Counts NaN and infinite values instead of raising an error, and shows them as image files do: as black.

    Args:
        network: as in NetworkRestorer.
        padding: as in NetworkRestorer.
        device: as in NetworkRestorer.
    """

    def __init__(self, network: nn.Module, padding: Padding, device: torch.device | str = "cpu") -> None:
        super().__init__(network, padding, device)
        self.counts: list[int] = []
        self.values = 0

    def pixels(self, lq: NDArray) -> Tensor:
        """Restore an image, with 0 in place of non-finite values, and append their number to `counts`; `values` is the sum of all."""
        pixels = super().pixels(lq)
        finite = torch.isfinite(pixels)
        self.values += pixels.numel()
        self.counts.append(pixels.numel() - int(finite.sum()))
        return torch.where(finite, pixels, 0.0)


def evaluate_in_precision(reduced: Reduced, test_sets: Sequence[TestSet]) -> list[SetResult]:
    """Evaluate a network in a precision on test sets.

    A NaN or infinite value of a restored image counts as black in the metrics, because this is what an image file would show. The number
    of such values of each image, and the largest activation of each layer, stand in `SetResult.precision`, and in words in its remarks.

    Args:
        reduced: the network in its precision; its record is started anew for each test set.
        test_sets: the test sets, all of one task.
    """
    device = next((parameter.device for parameter in reduced.network.parameters()), torch.device("cpu"))
    results = []
    for test_set in test_sets:
        reduced.reset()
        restorer = CountingRestorer(reduced.network, test_set.task.protocol.padding, device)
        (result,) = evaluate_sets(restorer, [test_set])
        counts = dict(zip(result.per_image, restorer.counts, strict=True))
        record = reduced.record()
        measured = {
            "non_finite": counts,
            "values": restorer.values,
            "first_overflow": record.first_overflow,
            "largest": dict(record.largest),
        }
        remarks = [*result.remarks, f"{result.name}, {_in_words(counts, record)}."]
        results.append(replace(result, remarks=remarks, precision=measured))
    return results


def _in_words(counts: dict[str, int], record: PrecisionRecord) -> str:
    spoiled = sum(count > 0 for count in counts.values())
    layer, largest = record.peak
    what = f"{record.precision}: {spoiled} of {len(counts)} images with NaN or infinite values"
    if spoiled:
        what += f" ({sum(counts.values()):,} values), which are measured as black"
    if record.first_overflow is not None:
        return f"{what}; activations overflow first in {layer}; use {record.wider}"
    return f"{what}; largest activation {largest:.4g} ({layer})"
