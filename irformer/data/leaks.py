"""Detection of test images in the training set, which would make the results on them meaningless."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irformer.core.files import write_atomically
from irformer.data.sources import TrainingImages
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.imaging.images import MAX_MEGAPIXELS, fingerprint, read_image

Size = tuple[int, int]
"""Height and width in pixels."""


class Fingerprints:
    """Fingerprints of images and of cropped images, cached in a small file so that the next start need not decode them again.

    Args:
        file: the cache; its keys are an image's path, size, modification time and crop.
        multiples: images are cropped from the top left to multiples of each of these numbers.
        max_megapixels: largest accepted image, in millions of pixels.
    """

    def __init__(self, file: Path, multiples: Sequence[int], max_megapixels: float = MAX_MEGAPIXELS) -> None:
        self.file = file
        self.multiples = multiples
        self.max_megapixels = max_megapixels
        self._known: dict[str, str] = {}
        self._keys: dict[Path, str] = {}
        if file.is_file():
            try:
                self._known = dict(json.loads(file.read_text(encoding="utf-8")))
            except ValueError:
                self._known = {}  # the cache is unreadable, but can be recomputed
        self._changed = False

    def of_file(self, path: Path, part: Size) -> str:
        """Return the fingerprint of an image file cropped to the given height and width in pixels.

        Raises:
            UserError: the file cannot be read.
        """
        if path not in self._keys:
            try:
                status = path.stat()
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}): restore or remove the file") from None
            self._keys[path] = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        return self._of(self._keys[path], part, lambda: read_image(path, self.max_megapixels))

    def of_training_image(self, images: TrainingImages, i: int, part: Size) -> str:
        """Return the fingerprint of a crop of clean image i of a training set, which may have it without decoding."""
        whole = images.fingerprint(i)
        if whole is None:
            return self.of_file(Path(images.name(i)), part)
        return whole if part == images.whole_size(i) else self._of(whole, part, lambda: images.whole_hq(i))

    def _of(self, image: str, part: Size, read: Callable[[], NDArray[np.uint8]]) -> str:
        if _key(image, part) not in self._known:
            pixels = read()
            for height, width in parts(pixels.shape[:2], self.multiples):  # all crops, so no file is decoded twice
                self._known[_key(image, (height, width))] = fingerprint(np.ascontiguousarray(pixels[:height, :width]))
            self._changed = True
        return self._known[_key(image, part)]

    def save(self) -> None:
        """Write the cache if it has changed."""
        if self._changed:
            write_atomically(self.file, lambda temporary: temporary.write_text(json.dumps(self._known, indent=0), encoding="utf-8"))


def require_no_test_images(
    images: TrainingImages,
    test_sets: Sequence[TestSet],
    allowed: Sequence[str],
    cache: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> None:
    """Check that no training image equals a clean test image, even flipped or rotated.

    Copies of test images exist that were cropped from the top left to multiples of a scale. Each pair is therefore compared both uncropped
    and cropped to multiples of every scale of the run, and of 12 (GTmod12). Only images with a size in common are decoded, each file once.

    Args:
        images: the training set.
        test_sets: the test sets used for validation and for the final results.
        allowed: names of test sets (`B100`) or of their images (`B100/101085`) that may be trained on.
        cache: file that caches fingerprints for the next start.
        max_megapixels: largest accepted image, in millions of pixels.

    Raises:
        UserError: a training image is a test image; the message names both files and the key that allows it.
    """
    multiples = sorted({1, 12, images.scale, *(test_set.task.scale for test_set in test_sets)})
    tested: dict[Size, dict[_Part, str]] = defaultdict(dict)
    for test_set in test_sets:
        for pair, header in zip(test_set.pairs, test_set.headers, strict=True):
            if test_set.name not in allowed and f"{test_set.name}/{pair.name}" not in allowed:
                whole = (header.height, header.width)
                for part in parts(whole, multiples):
                    tested[_either_way(part)].setdefault(_Part(pair.hq, part, whole), f"{test_set.name}/{pair.name}")
    fingerprints = Fingerprints(cache, multiples, max_megapixels)
    hits = []
    for i in range(len(images)):
        found = _find(images, i, multiples, tested, fingerprints)
        if found is not None:
            hits.append((images.name(i), *found))
    fingerprints.save()
    if hits:
        trained, file, test_image = hits[0]
        more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
        raise UserError(
            f"training image {trained} is the test image {test_image} ({file}){more}: train or test on other images, or allow it with "
            f"data.allow_test_images=[{test_image.rpartition('/')[0]}] (a set) or [{test_image}] (an image)"
        )


@dataclass(frozen=True)
class _Part:
    """A crop of a test image: its file, and height and width of the crop and of the whole image."""

    path: Path
    size: Size
    whole: Size


def _find(
    images: TrainingImages, i: int, multiples: Sequence[int], tested: Mapping[Size, Mapping[_Part, str]], fingerprints: Fingerprints
) -> tuple[Path, str] | None:
    """Return file and name of the test image that equals training image i, or None."""
    whole = images.whole_size(i)
    for size in parts(whole, multiples):
        for part, name in tested.get(_either_way(size), {}).items():
            # At least one of the two must be uncropped; if both images have the same size, both must be.
            wholes = (size == whole) + (part.size == part.whole)
            if wholes < (2 if _either_way(part.whole) == _either_way(whole) else 1):
                continue
            if fingerprints.of_training_image(images, i, size) == fingerprints.of_file(part.path, part.size):
                return part.path, name
    return None


def parts(size: Size, multiples: Sequence[int]) -> list[Size]:
    """Return the sizes of an image cropped to multiples of each of these numbers, without empty ones."""
    height, width = size
    cut = {(height - height % multiple, width - width % multiple): None for multiple in multiples}
    return [part for part in cut if min(part) > 0]


def _either_way(size: Size) -> Size:
    """Return a size that is the same for an image and its transpose."""
    return min(size), max(size)


def _key(image: str, part: Size) -> str:
    return f"{image}|{part[0]}x{part[1]}"
