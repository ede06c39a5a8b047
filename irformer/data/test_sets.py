"""Test sets by name, in common folder layouts: pairs of degraded and clean images with reproducible bytes."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irformer.data.pairs import HQ_FOLDERS, LR_FOLDERS, clean_half, degraded_half
from irformer.data.sources import ImagePair, crop_to_multiples, pair_folders
from irformer.datasets.catalog import (
    GRAY_AND_COLOUR,
    KODAK24_VARIANTS,
    SAMPLE,
    SAMPLE_VAL,
    TEST_SETS,
    find_folder,
    missing_set,
    sample_photos,
)
from irformer.errors import UserError
from irformer.imaging.gray import to_gray
from irformer.imaging.images import MAX_MEGAPIXELS, ImageHeader, list_images, printable, read_gray, read_header, read_image
from irformer.tasks.degradations import FromFiles
from irformer.tasks.task import Task


@dataclass(frozen=True)
class TestPair:
    """A degraded image [h, w, C], uint8 or (if not quantized) float32 in [0, 1], and its clean image [H, W, C], uint8."""

    __test__ = False

    name: str
    lq: NDArray
    hq: NDArray[np.uint8]


class TestSet(Sequence[TestPair]):
    """A test set for one task; pairs are read on demand.

    Args:
        name: name of the set in tables.
        pairs: its files.
        task: provides scale, channels, and the degradation of images that have no degraded file.
        max_megapixels: the largest image to read, in millions of pixels.

    Raises:
        UserError: a file is damaged, too large or too small to measure, the sizes of a pair do not match, or the task needs degraded files
            and one is missing.
    """

    __test__ = False

    def __init__(self, name: str, pairs: Sequence[ImagePair], task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> None:
        self.pairs = list(pairs)
        self.task = task
        self.max_megapixels = max_megapixels
        self.headers = headers = [read_header(pair.hq, max_megapixels) for pair in self.pairs]
        self.lq_pixels: list[int] = []  # of each image, from the headers
        for pair, header in zip(self.pairs, headers, strict=True):
            lq = read_header(pair.lq, max_megapixels) if pair.lq else None
            _require_measurable(header, lq, task)
            self.lq_pixels.append((header.height // task.scale) * (header.width // task.scale) if lq is None else lq.height * lq.width)
            if lq is not None:
                _require_matching_sizes(header, lq, task.scale)
            if lq is None and isinstance(task.degradation, FromFiles):
                raise UserError(
                    f"{name}: {pair.hq} has no degraded counterpart, and {task.name} cannot generate one: "
                    f"expected the folders input and target, with images of the same names"
                )
        self.name = _variant(name, headers)

    def subset(self, indices: Sequence[int]) -> "TestSet":
        """Return the images at these indices as a set of the same name."""
        part = copy(self)
        part.pairs = [self.pairs[i] for i in indices]
        part.headers = [self.headers[i] for i in indices]
        part.lq_pixels = [self.lq_pixels[i] for i in indices]
        return part

    @property
    def gray_files(self) -> list[str]:
        """The names of the files that have a single channel."""
        return [header.path.stem for header in self.headers if header.gray]

    @property
    def lq_source(self) -> str:
        """Where the degraded images come from, as recorded in results: files for all images, or generated for all."""
        return "files" if all(pair.lq for pair in self.pairs) else "made on the fly"

    @property
    def remarks(self) -> list[str]:
        """Notes about the set that readers of its results should know."""
        remarks = []
        color_files = len(self.pairs) - len(self.gray_files)
        if self.task.channels == 1:
            if color_files:
                remarks.append(f"{self.name}: {color_files} color files converted to gray by {_GRAY_LABELS[self._gray_rule]}.")
        elif self.gray_files and color_files:
            remarks.append(f"{self.name}: {', '.join(self.gray_files)} read as color from a single-channel file{self._narrowing}.")
        elif self.gray_files:
            remarks.append(f"{self.name}: all images read as color from single-channel files{self._narrowing}.")
        if {pair.hq.parent.name for pair in self.pairs} == {"GTmod12"} and 12 % self.task.scale:
            remarks.append(f"{self.name}: clean images are cropped to multiples of 12 (GTmod12), unlike the published ones at this scale.")
        return remarks

    @property
    def _narrowing(self) -> str:
        on_y = any(metric.on_y for metric in self.task.metrics.values())
        return ", which narrows its Y to 16-235" if on_y else ""

    @property
    def _gray_rule(self) -> str:
        return self.task.protocol.gray or "opencv"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> TestPair:  # type: ignore[override]
        """Read pair i, with the clean image cropped at the right and bottom to scale times the degraded size."""
        pair = self.pairs[i]
        hq = self._read(pair.hq)
        if pair.lq is None:
            hq = crop_to_multiples(hq, self.task.scale)
            return TestPair(pair.name, self.task.degradation.test(hq), hq)
        lq = self._read(pair.lq)
        height, width = (side * self.task.scale for side in lq.shape[:2])
        return TestPair(pair.name, lq, hq[:height, :width])

    def __iter__(self) -> Iterator[TestPair]:
        return (self[i] for i in range(len(self)))

    def _read(self, path: Path) -> NDArray[np.uint8]:
        """Read an image [H, W, C] with the task's channels; gray files are used as they are under both gray rules."""
        if self.task.channels == 3:
            return read_image(path, self.max_megapixels)
        if self._gray_rule == "opencv" or read_header(path, self.max_megapixels).gray:
            return read_gray(path, self.max_megapixels)
        return to_gray(read_image(path, self.max_megapixels), "matlab")


def evenly_spaced(number: int, count: int) -> list[int]:
    """Return `number` of the indices 0 to count - 1, the middles of equal parts: floor((i + 1/2) * count / number)."""
    return [(2 * i + 1) * count // (2 * number) for i in range(number)]


def _require_measurable(hq: ImageHeader, lq: ImageHeader | None, task: Task) -> None:
    """Check that a test image without its border is large enough for every metric.

    Raises:
        UserError: the image is too small.
    """
    scale, protocol = task.scale, task.protocol
    side = max(metric.smallest_side for metric in task.metrics.values())
    least = -(-max(2 * protocol.border + side, scale) // scale) * scale
    sides = [side // scale * scale for side in (hq.height, hq.width)] if lq is None else [scale * lq.height, scale * lq.width]
    if min(sides) < least:
        file = hq if lq is None else lq
        least = least if lq is None else least // scale
        raise UserError(
            f"{file.path}: {file.width}x{file.height} pixels, expected at least {least}x{least} to measure {', '.join(task.metrics)} "
            f"with a border of {protocol.border}: remove the image from the test set"
        )


def _require_matching_sizes(hq: ImageHeader, lq: ImageHeader, scale: int) -> None:
    """Check that a clean image is scale times as large as its degraded image; files cropped to multiples of 12 (GTmod12) may be larger.

    Raises:
        UserError: the sizes do not match.
    """
    most = 12 if scale > 1 else 1
    if not all(0 <= slack < most for slack in (hq.height - scale * lq.height, hq.width - scale * lq.width)):
        raise UserError(
            f"{hq.path} is {hq.width}x{hq.height} and {lq.path} {lq.width}x{lq.height}: the sizes do not match at scale {scale}; "
            "replace or remove the pair, or choose a task with another scale"
        )


_GRAY_LABELS = {"matlab": "MATLAB's Y (rounded, 16-235)", "opencv": "OpenCV's reader (0-255)"}


def find_test_set(name: str, root: Path, task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> TestSet:
    """Find a test set by its name in the literature, `sample` (photos that come with scikit-image), or the path of a folder.

    The folder contains clean images, or has the layout of a known set. Relative paths are searched in the current and the data folder.

    Args:
        name: name of the set, or path of a folder.
        root: the data folder.
        task: the task to test.
        max_megapixels: the largest image to read, in millions of pixels.

    Raises:
        UserError: the name is unknown, or the set is not on disk.
    """
    if name == SAMPLE:
        return TestSet(name, [ImagePair(path.stem, path) for path in sample_photos(SAMPLE_VAL)], task, max_megapixels)
    key = _known_name(name, task)
    if key is not None:
        folder = _find_known(key, root, task, max_megapixels)
        if folder is None:
            raise missing_set(key, root, TEST_SETS[key])
        return _read_tree(key, folder, task, max_megapixels)
    for folder in (Path(name), root / name):
        if folder.is_dir():
            return _read_tree(printable(folder.name), folder, task, max_megapixels)
    raise UserError(f"unknown test set {name}; known: {', '.join([*TEST_SETS, SAMPLE])}, or the path of a folder of clean images")


def available_test_sets(names: Sequence[str], root: Path, task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> list[TestSet]:
    """Return the named test sets that are on disk."""
    return [
        find_test_set(name, root, task, max_megapixels)
        for name in names
        if _find_known(_known_name(name, task) or name, root, task, max_megapixels)
    ]


def _known_name(name: str, task: Task) -> str | None:
    """Return the catalog's name of a set, given one of its names, or None."""
    aliases = {alias.lower(): key for key, folders in TEST_SETS.items() for alias in (*folders, key)}
    key = aliases.get(name.lower())
    if key is None:
        return None
    for gray, color in GRAY_AND_COLOUR.items():
        if key in (gray, color):
            key = gray if task.channels == 1 else color
    return key


def _find_known(key: str, root: Path, task: Task, max_megapixels: float) -> Path | None:
    """Return the folder of a known set, or None; for a color set, folders that contain only gray files are ignored."""
    for candidate in TEST_SETS.get(key, (key,)):
        folder = find_folder(root, (candidate,))
        if folder is None:
            continue
        in_color = key in GRAY_AND_COLOUR.values()
        if in_color:
            paths = list_images(_hq_folder(folder, task), f"expected the images of {key}")
            if all(read_header(path, max_megapixels).gray for path in paths):
                continue
        return folder
    return None


def _hq_folder(folder: Path, task: Task) -> Path:
    if isinstance(task.degradation, FromFiles):
        return clean_half(folder, task.scale) or folder
    return find_folder(folder, tuple(name.format(scale=task.scale) for name in HQ_FOLDERS)) or folder


def _read_tree(name: str, folder: Path, task: Task, max_megapixels: float) -> TestSet:
    hq = _hq_folder(folder, task)
    list_images(hq, f"expected the images of {name}")
    return TestSet(name, pair_folders(hq, _lq_folder(folder, task), task.scale), task, max_megapixels)


def _lq_folder(folder: Path, task: Task) -> Path | None:
    """Return the folder of a set's degraded images if they follow the task's protocol, or None."""
    if isinstance(task.degradation, FromFiles):
        return degraded_half(folder, task.scale)
    # Distributed LR files were generated from uint8 images up to x4 and from double images at x8; others are generated on the fly.
    variant_of_files = "matlab_double" if task.scale == 8 else "matlab_uint8"
    if task.scale == 1 or task.protocol.lr != variant_of_files:
        return None
    candidates: tuple[str, ...] = LR_FOLDERS
    if folder.name.endswith("_HR"):  # DIV2K_valid_HR is next to DIV2K_valid_LR_bicubic
        candidates = (f"../{folder.name.removesuffix('_HR')}_LR_bicubic/X{{scale}}", *candidates)
    return find_folder(folder, tuple(candidate.format(scale=task.scale) for candidate in candidates))


def _variant(name: str, headers: Sequence[ImageHeader]) -> str:
    """Add the variant to the name of Kodak24, because results on its two variants differ."""
    if name != "Kodak24":
        return name
    variant = KODAK24_VARIANTS.get(frozenset((header.height, header.width) for header in headers), "of other sizes")
    return f"Kodak24 ({variant})"
