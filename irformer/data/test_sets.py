"""Test sets by name, in the trees in which people have them: pairs of degraded and clean images, the same bytes everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irformer.data.catalog import SAMPLE, SAMPLE_VAL, TEST_SETS, find_folder, missing_set, sample_photos
from irformer.data.images import list_images, read_header, read_image
from irformer.data.sources import ImagePair, pair_folders
from irformer.errors import UserError
from irformer.tasks import Task

_HQ_FOLDERS = ("HR", "GTmod12", "original")
_LQ_FOLDERS = ("LR_bicubic/X{scale}", "LRbicx{scale}")
_SEED = 0  # of degradations that draw random numbers: every image of every test set, as in the published test code


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
        task: gives the scale and the degradation of images that have no degraded file.
    """

    __test__ = False

    def __init__(self, name: str, pairs: Sequence[ImagePair], task: Task) -> None:
        self.name = name
        self.pairs = list(pairs)
        self.task = task
        self.gray_files = [pair.name for pair in self.pairs if read_header(pair.hq).gray]
        for pair in self.pairs:
            if pair.lq:
                read_header(pair.lq)

    @property
    def lq_source(self) -> str:
        """Where the degraded images come from, for the record: all have a file, or none."""
        return "files" if all(pair.lq for pair in self.pairs) else "made on the fly"

    @property
    def remarks(self) -> list[str]:
        """What a reader of this set's numbers should know."""
        if self.gray_files and len(self.gray_files) < len(self.pairs):
            return [f"{self.name}: {', '.join(self.gray_files)} read as colour from a single-channel file, which narrows its Y to 16-235."]
        return []

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> TestPair:  # type: ignore[override]
        """Read pair i; the clean image is cut to scale times the degraded one, from the top left."""
        pair = self.pairs[i]
        hq = read_image(pair.hq)
        if pair.lq is None:
            hq = self.task.crop_to_scale(hq)
            return TestPair(pair.name, self.task.degradation(hq, np.random.default_rng(_SEED)), hq)
        lq = read_image(pair.lq)
        height, width = (side * self.task.scale for side in lq.shape[:2])
        slack_rows, slack_columns = hq.shape[0] - height, hq.shape[1] - width
        if not (0 <= slack_rows < 12 and 0 <= slack_columns < 12):  # GTmod12 files are cut to multiples of 12
            raise UserError(
                f"{pair.hq} is {hq.shape[1]}x{hq.shape[0]} and {pair.lq} {lq.shape[1]}x{lq.shape[0]}: "
                f"they do not fit at scale {self.task.scale}"
            )
        return TestPair(pair.name, lq, hq[:height, :width])

    def __iter__(self) -> Iterator[TestPair]:
        return (self[i] for i in range(len(self)))


def is_test_set(name: str) -> bool:
    """Whether a name is one that papers give a test set."""
    return any(name.lower() == alias.lower() for names in TEST_SETS.values() for alias in names)


def find_test_set(name: str, root: Path, task: Task) -> TestSet:
    """A test set by a name that papers give it, `sample` (photographs that come with scikit-image), or a folder of clean images.

    Raises:
        UserError: the name is unknown, or the set is not on disk.
    """
    if name == SAMPLE:
        return TestSet(name, [ImagePair(path.stem, path) for path in sample_photos(SAMPLE_VAL)], task)
    aliases = {alias.lower(): key for key, names in TEST_SETS.items() for alias in names}
    key = aliases.get(name.lower())
    if key is None:
        if Path(name).is_dir():
            return TestSet(Path(name).name, pair_folders(Path(name), None, task.scale), task)
        raise UserError(f"unknown test set {name}; known: {', '.join([*TEST_SETS, SAMPLE])}, or the path of a folder of clean images")
    folder = find_folder(root, TEST_SETS[key])
    if folder is None:
        raise missing_set(key, root, TEST_SETS[key])
    hq = find_folder(folder, _HQ_FOLDERS) or folder
    # The LR files that go around are the uint8 variant of MATLAB's imresize; for the other one LR is made on the fly.
    has_lq = task.scale > 1 and task.protocol.lr == "matlab_uint8"
    lq = find_folder(folder, tuple(name.format(scale=task.scale) for name in _LQ_FOLDERS)) if has_lq else None
    list_images(hq, f"the images of {key} are expected there")
    return TestSet(key, pair_folders(hq, lq, task.scale), task)


def available_test_sets(names: Sequence[str], root: Path, task: Task) -> list[TestSet]:
    """Those of the named test sets that are on disk."""
    return [find_test_set(name, root, task) for name in names if find_folder(root, TEST_SETS.get(name, (name,)))]
