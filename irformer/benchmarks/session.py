"""Carries out a workload: measures what results.json lacks, and writes the file after every test set."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import torch
from numpy.typing import NDArray
from tqdm import tqdm

from irformer.benchmarks.benchmark_page import kept_images
from irformer.benchmarks.results_folder import IMAGES_KEY, ResultsFolder, fingerprint
from irformer.benchmarks.shared_work import OneDevice, SeveralDevices, Work
from irformer.benchmarks.workload import Evaluation, Workload
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.evaluation.image_costs import OnImage
from irformer.evaluation.results import Record, SetResult
from irformer.imaging.images import printable, write_image
from irformer.reporting.page import format_metrics

IMAGES = "images"
"""Folder of restored images: images/TASK/SET/IMAGE/CHECKPOINT.png; departures follow the name of the checkpoint."""

PAGE_IMAGES = ".page"
"""Folder of the restored images that the page can show, in the same layout, unless all images are saved."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Measures a workload.

    Args:
        folder: where results are looked up and written.
        device: the device of the restorers.
        devices: devices that share the images; a single one computes in this process.
        save_images: whether to write all restored images; otherwise those that the page can show.
        remeasure: whether to measure sets again that results.json already has.
    """

    folder: ResultsFolder
    device: torch.device
    devices: list[torch.device]
    save_images: bool = False
    remeasure: bool = False
    _image_names: dict[int, str] = field(default_factory=dict, init=False, repr=False)  # by the id of the evaluation

    def measure(self, workload: Workload) -> list[Record]:
        """Measure what is missing.

        Returns:
            The records of all evaluations with exactly the test sets of the workload.

        Raises:
            UserError: results.json or an image cannot be written; what was measured before is kept.
        """
        parts = _parts(workload)
        for evaluation in workload.evaluations:
            names = {part.name: {pair.name for pair in part.pairs} for part in evaluation.test_sets}
            self.folder.require_same_sets(evaluation.record(), names)
        results = {} if self.remeasure else {part: known for part in parts if (known := self._known(part)) is not None}
        missing = [part for part in parts if part not in results]
        if results:
            _log.info("%s: %d of %d test sets were measured before", self.folder.file, len(results), len(parts))
        with _Progress(missing) as progress, self._computer(missing) as computer:
            for part in missing:
                with progress.of(part) as finished:
                    work = Work(part.evaluation.restorer, part.test_set, part.evaluation.reduced)
                    measured = computer.measure(work, self._on_image(part, finished))
                results[part] = replace(measured, fingerprint=part.fingerprint)
                self._save(part, results[part])
        return [
            evaluation.record([results[part] for part in parts if part.evaluation is evaluation]) for evaluation in workload.evaluations
        ]

    def image_file(self, evaluation: Evaluation, test_set: str, image: str, folder: str = IMAGES) -> Path:
        """Return the file of a restored image.

        Args:
            evaluation: what restored it.
            test_set: name of its set.
            image: its name.
            folder: `IMAGES` or `PAGE_IMAGES`.
        """
        task, name = self._image_name(evaluation).split("/")
        return Path(self.folder.folder, folder, task, _file_name(test_set), _file_name(image), f"{name}.png")

    def _image_name(self, evaluation: Evaluation) -> str:
        """Return the folder of the task and the name of the restored images, which no other result in the folder has."""
        if id(evaluation) not in self._image_names:
            departures = ["ensemble"] if evaluation.departures.get("ensemble") else []
            departures += [f"tile{evaluation.departures['tile']}"] if "tile" in evaluation.departures else []
            departures += [evaluation.reduced.precision] if evaluation.reduced is not None else []
            task = evaluation.task.label.replace(", ", "-").replace(" ", "_")
            wanted = f"{_file_name(task)}/{_file_name('-'.join([evaluation.subject.short, *departures]))}"
            self._image_names[id(evaluation)] = self.folder.image_name(evaluation.record(), wanted)
        return self._image_names[id(evaluation)]

    def saved_image(self, evaluation: Evaluation, test_set: str, image: str) -> Path | None:
        """Return the file of a restored image that was saved for any reason, or None."""
        files = (self.image_file(evaluation, test_set, image, folder) for folder in (IMAGES, PAGE_IMAGES))
        return next((file for file in files if file.is_file()), None)

    def _save(self, part: "_Part", result: SetResult) -> None:
        try:
            record = part.evaluation.record([result])
            record.further[IMAGES_KEY] = self._image_name(part.evaluation)
            self.folder.add(record)
        except UserError as error:
            name = f"{part.evaluation.subject.short} on {result.name}"
            raise UserError(f"{error}; measured, but not saved: {name}, {format_metrics(result.metrics)}") from None

    def _known(self, part: "_Part") -> SetResult | None:
        """Return an earlier result on the same images, whose restored images exist if they are wanted, or None."""
        record = self.folder.find(part.evaluation.record())
        known = None if record is None else record.test_sets.get(part.test_set.name)
        if known is None or known.fingerprint != part.fingerprint:
            return None
        wanted = known.per_image if self.save_images else ()
        return known if all(self.image_file(part.evaluation, known.name, name).is_file() for name in wanted) else None

    def _on_image(self, part: "_Part", finished: Callable[[str], None]) -> OnImage:
        kept = {pair.name for pair in kept_images(part.test_set).pairs}

        def on_image(name: str, restored: NDArray | None) -> None:
            if restored is not None and (self.save_images or name in kept):
                file = self.image_file(part.evaluation, part.test_set.name, name, IMAGES if self.save_images else PAGE_IMAGES)
                with self.folder.writing():
                    file.parent.mkdir(parents=True, exist_ok=True)
                write_image(file, restored)
            finished(name)

        return on_image

    def _computer(self, missing: Sequence["_Part"]) -> OneDevice | SeveralDevices:
        return SeveralDevices(self.devices) if len(self.devices) > 1 and missing else OneDevice(self.device)


@dataclass(frozen=True, eq=False)
class _Part:
    """A test set of an evaluation, and its checksum."""

    evaluation: Evaluation
    test_set: TestSet
    fingerprint: str

    @property
    def megapixels(self) -> dict[str, float]:
        """The sizes of the degraded images by name."""
        return {pair.name: pixels / 1e6 for pair, pixels in zip(self.test_set.pairs, self.test_set.lq_pixels, strict=True)}


def _parts(workload: Workload) -> list[_Part]:
    known: dict[tuple[Path | None, ...], str] = {}  # networks and tasks share files
    parts = []
    for evaluation in workload.evaluations:
        for test_set in evaluation.test_sets:
            files = tuple(file for pair in test_set.pairs for file in (pair.hq, pair.lq))
            known[files] = known.get(files) or fingerprint(test_set)
            parts.append(_Part(evaluation, test_set, known[files]))
    return parts


def _file_name(text: str) -> str:
    """Replace what a file's name cannot contain."""
    return printable(text).replace("/", "_").replace("\\", "_").strip(".") or "_"


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


class _Progress:
    """A progress bar over all images in megapixels, with the time left, on a terminal; a line for each test set in a log.

    Args:
        parts: what is to be measured.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        total = sum(sum(part.megapixels.values()) for part in parts)
        self._bar = tqdm(total=total, leave=False, disable=None if parts else True, bar_format=_BAR)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @contextmanager
    def of(self, part: _Part) -> Iterator[Callable[[str], None]]:
        """Show the progress of a test set; the value of the context is called with the name of each finished image."""
        short, name, sizes = part.evaluation.subject.short, part.test_set.name, part.megapixels
        started, done = time.monotonic(), count(1)
        self._bar.set_description(f"{short}, {name} 0/{len(sizes)}")

        def finished(image: str) -> None:
            self._bar.update(sizes[image])
            self._bar.set_description(f"{short}, {name} {next(done)}/{len(sizes)}")

        yield finished
        if self._bar.disable:
            label = part.evaluation.task.label
            _log.info("measured %s (%s, %s): %d images in %.0f s", name, short, label, len(sizes), time.monotonic() - started)
