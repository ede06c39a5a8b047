"""Test sets by name, in the trees in which people have them: pairs of degraded and clean images, the same bytes everywhere."""

from collections.abc import Iterator, Sequence
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
    """A degraded image and the clean one: uint8 (or float32 in units of [0, 1] where not quantised), [h, w, C] and [H, W, C]."""

    __test__ = False

    name: str
    lq: NDArray
    hq: NDArray[np.uint8]


class TestSet(Sequence[TestPair]):
    """A test set for one task. Pairs are read when they are asked for.

    Args:
        name: the set's name in tables.
        pairs: its files.
        task: gives scale, channels, and the degradation of images that have no degraded file.
        max_megapixels: the largest image that is read, in millions of pixels.

    Raises:
        UserError: a file is damaged, too large, too small to be measured or unfit, or the task needs degraded files and there are none.
    """

    __test__ = False

    def __init__(self, name: str, pairs: Sequence[ImagePair], task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> None:
        self.pairs = list(pairs)
        self.task = task
        self.max_megapixels = max_megapixels
        self.headers = headers = [read_header(pair.hq, max_megapixels) for pair in self.pairs]
        for pair, header in zip(self.pairs, headers, strict=True):
            lq = read_header(pair.lq, max_megapixels) if pair.lq else None
            _require_measurable(header, lq, task)
            if lq is not None:
                _require_fit(header, lq, task.scale)
            if lq is None and isinstance(task.degradation, FromFiles):
                raise UserError(
                    f"{name}: {pair.hq} has no degraded counterpart, and {task.name} cannot make one: "
                    f"expected the folders input and target, with images of the same names"
                )
        self.gray_files = [header.path.stem for header in headers if header.gray]
        self.name = _variant(name, headers)

    @property
    def lq_source(self) -> str:
        """Where the degraded images come from, for the record: all have a file, or none."""
        return "files" if all(pair.lq for pair in self.pairs) else "made on the fly"

    @property
    def remarks(self) -> list[str]:
        """What a reader of this set's numbers should know."""
        remarks = []
        colour_files = len(self.pairs) - len(self.gray_files)
        if self.task.channels == 1:
            if colour_files:
                remarks.append(f"{self.name}: {colour_files} colour files turned gray by {_GRAY_TOLD[self._gray_rule]}.")
        elif self.gray_files and colour_files:
            remarks.append(f"{self.name}: {', '.join(self.gray_files)} read as colour from a single-channel file{self._narrowing}.")
        elif self.gray_files:
            remarks.append(f"{self.name}: all images read as colour from single-channel files{self._narrowing}.")
        if {pair.hq.parent.name for pair in self.pairs} == {"GTmod12"} and 12 % self.task.scale:
            remarks.append(f"{self.name}: clean images cut to multiples of 12 (GTmod12), which the published ones at this scale are not.")
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
        """Read pair i; the clean image is cut to scale times the degraded one, from the top left."""
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
        """[H, W, C] of a file, with the task's channels. Under both rules a gray file is gray already."""
        if self.task.channels == 3:
            return read_image(path, self.max_megapixels)
        if self._gray_rule == "opencv" or read_header(path, self.max_megapixels).gray:
            return read_gray(path, self.max_megapixels)
        return to_gray(read_image(path, self.max_megapixels), "matlab")


def _require_measurable(hq: ImageHeader, lq: ImageHeader | None, task: Task) -> None:
    """Check that what is left of a test image within the border is large enough for every metric.

    Raises:
        UserError: the image is too small; it is named with the smallest size.
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
            f"within a border of {protocol.border}: remove the image from the test set"
        )


def _require_fit(hq: ImageHeader, lq: ImageHeader, scale: int) -> None:
    """Check that a clean image is as large as its degraded one times the scale; files cut to multiples of 12 (GTmod12) may be larger.

    Raises:
        UserError: it is not.
    """
    most = 12 if scale > 1 else 1
    if not all(0 <= slack < most for slack in (hq.height - scale * lq.height, hq.width - scale * lq.width)):
        raise UserError(
            f"{hq.path} is {hq.width}x{hq.height} and {lq.path} {lq.width}x{lq.height}: they do not fit at scale {scale}; "
            "replace or remove the pair, or choose a task of another scale"
        )


_GRAY_TOLD = {"matlab": "MATLAB's Y (rounded, 16-235)", "opencv": "OpenCV's reader (0-255)"}


def find_test_set(name: str, root: Path, task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> TestSet:
    """A test set by a name that papers give it, `sample` (photographs that come with scikit-image), or a folder.

    A folder holds clean images, or is a tree as the known sets have it. A relative one is looked for from here and below root.

    Args:
        name: of the set.
        root: the data folder.
        task: what the set is for.
        max_megapixels: the largest image that is read, in millions of pixels.

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
    """Those of the named test sets that are on disk."""
    return [
        find_test_set(name, root, task, max_megapixels)
        for name in names
        if _find_known(_known_name(name, task) or name, root, task, max_megapixels)
    ]


def _known_name(name: str, task: Task) -> str | None:
    """The catalog's name for one of a set's names, or None."""
    aliases = {alias.lower(): key for key, folders in TEST_SETS.items() for alias in (*folders, key)}
    key = aliases.get(name.lower())
    if key is None:
        return None
    for gray, colour in GRAY_AND_COLOUR.items():
        if key in (gray, colour):
            key = gray if task.channels == 1 else colour
    return key


def _find_known(key: str, root: Path, task: Task, max_megapixels: float) -> Path | None:
    """The folder of a known set. A folder of gray files is not the set in colour, whatever its name."""
    for candidate in TEST_SETS.get(key, (key,)):
        folder = find_folder(root, (candidate,))
        if folder is None:
            continue
        in_colour = key in GRAY_AND_COLOUR.values()
        if in_colour:
            paths = list_images(_hq_folder(folder, task), f"{key} is expected there")
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
    list_images(hq, f"the images of {name} are expected there")
    return TestSet(name, pair_folders(hq, _lq_folder(folder, task), task.scale), task, max_megapixels)


def _lq_folder(folder: Path, task: Task) -> Path | None:
    """Where the degraded images of a tree lie, if they are those of the task's protocol."""
    if isinstance(task.degradation, FromFiles):
        return degraded_half(folder, task.scale)
    # The LR files that go around were made on uint8 images up to x4 and on double images at x8; the others are made on the fly.
    variant_of_files = "matlab_double" if task.scale == 8 else "matlab_uint8"
    if task.scale == 1 or task.protocol.lr != variant_of_files:
        return None
    candidates: tuple[str, ...] = LR_FOLDERS
    if folder.name.endswith("_HR"):  # DIV2K_valid_HR stands beside DIV2K_valid_LR_bicubic
        candidates = (f"../{folder.name.removesuffix('_HR')}_LR_bicubic/X{{scale}}", *candidates)
    return find_folder(folder, tuple(candidate.format(scale=task.scale) for candidate in candidates))


def _variant(name: str, headers: Sequence[ImageHeader]) -> str:
    """The name with the variant of Kodak24, where it is one: a reader of a table must see which of the two was measured."""
    if name != "Kodak24":
        return name
    variant = KODAK24_VARIANTS.get(frozenset((header.height, header.width) for header in headers), "of other sizes")
    return f"Kodak24 ({variant})"
