"""The page of a benchmark: its tables, the metrics of every image, and restored images in a viewer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irformer.benchmarks.paper_tables import TaskTable
from irformer.benchmarks.workload import Evaluation, Workload
from irformer.data.test_sets import TestPair, TestSet, evenly_spaced
from irformer.evaluation.results import Record
from irformer.imaging.images import read_gray, read_image
from irformer.reporting.gallery import Restored, gallery
from irformer.reporting.page import image_table, write_page
from irformer.reporting.viewer import ViewedImage

_KEPT = 14  # images of each test set whose restored versions are kept for the page
_VIEWED = 24  # images on the page

SavedImage = Callable[[Evaluation, str, str], Path | None]
"""Returns the file of a restored image of an evaluation, given the names of its set and of the image; None if it was not saved."""


def kept_images(test_set: TestSet) -> TestSet:
    """Return the images of a set that the page can show; they do not depend on the other sets, which may be measured later."""
    count = len(test_set)
    return test_set.subset(evenly_spaced(min(_KEPT, count), count))


def write_benchmark_page(
    path: Path, workload: Workload, records: Sequence[Record], tables: Sequence[TaskTable], saved_image: SavedImage
) -> None:
    """Write the page of a benchmark.

    Args:
        path: the file to write.
        workload: what was measured.
        records: the record of each evaluation.
        tables: the tables of all tasks.
        saved_image: where restored images are; a version without a file is not shown.
    """
    tasks = list(dict.fromkeys(evaluation.task.label for evaluation in workload.evaluations))
    images: list[ViewedImage] = []
    details = []
    groups = _by_task(workload, records)
    for group in groups:
        task = group[0][0].task
        prefix = f"{task.label}/" if len(groups) > 1 else ""
        versions = {record.label: _from_files(evaluation, saved_image) for evaluation, record in group}
        results = {record.label: list(record.test_sets.values()) for _, record in group}
        test_sets = [kept_images(test_set) for test_set in group[0][0].test_sets]
        images += gallery(test_sets, versions, results, max(1, _VIEWED // len(groups)), prefix)
        details.append(image_table(task, results, prefix))
    networks = {record.label: record.checkpoint for record in records if record.label != record.checkpoint}
    environment = records[0].further.get("environment", {})
    write_page(
        path,
        title=f"Benchmark: {', '.join(tasks)}",
        summary={**networks, "versions": ", ".join(f"{name} {version}" for name, version in environment.items())},
        tables=[table for part in tables for table in part.tables],
        remarks=[f"Skipped: {line}" for line in workload.skipped],
        images=images,
        details=details,
    )


def _by_task(workload: Workload, records: Sequence[Record]) -> list[list[tuple[Evaluation, Record]]]:
    groups: dict[int, list[tuple[Evaluation, Record]]] = {}
    for evaluation, record in zip(workload.evaluations, records, strict=True):
        groups.setdefault(id(evaluation.task), []).append((evaluation, record))
    return list(groups.values())


def _from_files(evaluation: Evaluation, saved_image: SavedImage) -> Restored:
    read = read_image if evaluation.task.channels == 3 else read_gray

    def restored(set_name: str, pair: TestPair) -> NDArray[np.uint8] | None:
        file = saved_image(evaluation, set_name, pair.name)
        return None if file is None else read(file)

    return restored
