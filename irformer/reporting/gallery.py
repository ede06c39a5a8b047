"""Test images in all their versions, for the viewer of a page: the degraded image, each restored image, and the ground truth."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from irformer.data.test_sets import TestPair, TestSet, evenly_spaced
from irformer.evaluation.evaluate import SetResult
from irformer.evaluation.restorers import NonFiniteOutputError, Restorer, baseline
from irformer.reporting.tables import Number
from irformer.reporting.viewer import Version, ViewedImage

TRUTH = "truth"

Restored = Callable[[str, TestPair], NDArray[np.uint8] | None]
"""Returns the restored image of a pair, given the name of its set; None if there is none, such as an output that is not finite."""


def restored_by(restorer: Restorer) -> Restored:
    """Return a function that restores the images that are shown."""

    def restore(_set_name: str, pair: TestPair) -> NDArray[np.uint8] | None:
        try:
            return restorer(pair.lq)
        except NonFiniteOutputError:
            return None

    return restore


def chosen_images(test_sets: Sequence[TestSet], most: int) -> list[tuple[TestSet, int]]:
    """Return which images a page shows, as many as `most` in all: the sets take turns, and the images of each are evenly spaced."""
    counts = np.zeros(len(test_sets), int)
    sizes = [len(test_set) for test_set in test_sets]
    while counts.sum() < min(most, sum(sizes)):
        for i, size in enumerate(sizes):
            if counts[i] < size and counts.sum() < most:
                counts[i] += 1
    return [
        (test_set, index)
        for test_set, count in zip(test_sets, counts.tolist(), strict=True)
        if count
        for index in evenly_spaced(count, len(test_set))
    ]


def gallery(
    test_sets: Sequence[TestSet],
    versions: Mapping[str, Restored],
    results: Mapping[str, Sequence[SetResult]],
    most: int,
    prefix: str = "",
) -> list[ViewedImage]:
    """Return test images in all their versions, with their metrics.

    The first version is the input, enlarged by the task's baseline, even if it is not among the versions.

    Args:
        test_sets: sets of one task.
        versions: restored images by the name of the version.
        results: the results of each version on these sets, in any order; without a result, a version has no metrics.
        most: the largest number of images, see `chosen_images`.
        prefix: start of the images' names, which are otherwise `SET/IMAGE`.
    """
    task = test_sets[0].task
    name, untrained = baseline(task)
    all_versions = dict(versions) if name in versions else {name: restored_by(untrained), **versions}
    measured = {caption: {result.name: result.per_image for result in rows} for caption, rows in results.items()}
    digits = {name: metric.traits.digits for name, metric in task.metrics.items()}
    images = []
    for test_set, index in chosen_images(test_sets, most):
        pair = test_set[index]
        shown = []
        for caption, restored in all_versions.items():
            pixels = restored(test_set.name, pair)
            if pixels is not None:
                metrics = measured.get(caption, {}).get(test_set.name, {}).get(pair.name, {})
                shown.append(Version(caption, pixels, {metric: Number(value, digits[metric]) for metric, value in metrics.items()}))
        images.append(ViewedImage(f"{prefix}{test_set.name}/{pair.name}", (*shown, Version(TRUTH, pair.hq)), TRUTH))
    return images
