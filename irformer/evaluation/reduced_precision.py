"""Measuring a network in a precision other than float32: calibration images, and what the precision did to each test set."""

import math
from collections.abc import Sequence
from dataclasses import replace

from irformer.data.sources import ImagePair
from irformer.data.test_sets import TestSet
from irformer.datasets.catalog import sample_photos
from irformer.evaluation.restorers import to_tensor
from irformer.evaluation.results import SetResult
from irformer.precision.quantization import Calibration
from irformer.precision.reduced import PrecisionRecord
from irformer.tasks.degradations import FromFiles
from irformer.tasks.task import Task

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


def with_precision_record(result: SetResult, record: PrecisionRecord) -> SetResult:
    """Add to the result of a test set what a precision did to it: `SetResult.precision`, and a remark in words.

    Args:
        result: the result.
        record: the record of a network in this precision on the images of the set (`irformer.precision.reduced.Reduced.record`).
    """
    measured = {"first_overflow": record.first_overflow, "largest": dict(record.largest)}
    layer, largest = record.peak
    if record.first_overflow is not None:
        what = f"activations overflow first in {layer}; use {record.wider}"
    else:
        what = f"largest activation {largest:.4g} ({layer})"
    return replace(result, remarks=[*result.remarks, f"{result.name}, {record.precision}: {what}."], precision=measured)


def joined_records(records: Sequence[PrecisionRecord]) -> PrecisionRecord:
    """Join the records of copies of one network that each restored a part of the images."""
    first = records[0]
    largest = {name: _largest([record.largest[name] for record in records if name in record.largest]) for name in first.largest}
    images, values, non_finite = (sum(getattr(record, name) for record in records) for name in ("images", "values", "non_finite"))
    return replace(first, images=images, values=values, non_finite=non_finite, largest=largest)


def _largest(values: Sequence[float]) -> float:
    return next((value for value in values if not math.isfinite(value)), max(values))
