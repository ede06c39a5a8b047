"""The images of a training set: pairing of files, image sizes, and access to pixels."""

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from irformer.datasets.catalog import SAMPLE, SAMPLE_TRAIN, TRAINING_SETS, TrainingSet, find_folder, missing_set, sample_photos
from irformer.errors import UserError
from irformer.imaging.images import MAX_MEGAPIXELS, ImageHeader, list_images, printable, read_header, read_image, require_distinct_stems

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagePair:
    """A clean image and, if it exists on disk, its degraded counterpart."""

    name: str
    hq: Path
    lq: Path | None = None


def find_training_set(name: str, root: Path, scale: int, lq_files: bool = True) -> list[ImagePair]:
    """Find the image pairs of a known training set.

    Args:
        name: a name from the catalog, or `sample` for the photos that come with scikit-image.
        root: the data folder.
        scale: scale factor of the official degraded images to use if they exist; 1 for degraded images of the same size.
        lq_files: whether to use degraded images on disk.

    Raises:
        UserError: the set is unknown or not on disk.
    """
    if name == SAMPLE:
        return [ImagePair(path.stem, path) for path in sample_photos(SAMPLE_TRAIN)]
    known = known_set(name)
    hq = find_folder(root, known.hq)
    if hq is None:
        raise missing_set(name, root, known.hq)
    return pair_folders(hq, find_lq(name, root, scale) if lq_files else None, scale)


def known_set(name: str) -> TrainingSet:
    """Look up a training set in the catalog.

    Raises:
        UserError: the set is unknown.
    """
    if name not in TRAINING_SETS:
        raise UserError(f"unknown training set {name}; known: {', '.join([*TRAINING_SETS, SAMPLE])}")
    return TRAINING_SETS[name]


def find_lq(name: str, root: Path, scale: int) -> Path | None:
    """Return the folder of a known set's degraded images for a scale, or None; paths for scale 1 have no scale in their name."""
    candidates = [folder for folder in known_set(name).lq if ("{scale}" in folder) == (scale > 1)]
    return find_folder(root, tuple(folder.format(scale=scale) for folder in candidates))


def pair_folders(hq: Path, lq: Path | None, scale: int) -> list[ImagePair]:
    """Pair the images of two folders by name: `0001.png` with `0001.png` or `0001x2.png`; without `lq`, pairs have no degraded image.

    Raises:
        UserError: a folder is missing or empty, two images have the same name, or an image has no counterpart or more than one.
    """
    images = list_images(hq, "set data.path=FOLDER to the folder of clean images, or the variable IRFORMER_DATA to its parent")
    require_distinct_stems(images)
    if lq is None:
        return [ImagePair(printable(path.stem), path) for path in images]
    degraded = list_images(lq, "set data.lq_path=FOLDER to the folder of degraded images, or omit it")
    require_distinct_stems(degraded)
    partners = {path.stem: path for path in degraded}
    found = {path: [partners[name] for name in (f"{path.stem}x{scale}", path.stem) if name in partners] for path in images}
    unpaired = [path.stem for path, some in found.items() if not some]
    if unpaired:
        raise UserError(
            f"{len(unpaired)} of {len(images)} images in {hq} have no degraded counterpart in {lq} "
            f"(named NAME or NAMEx{scale}), the first: {', '.join(unpaired[:5])}"
        )
    _require_one_partner(found, lq)
    return [ImagePair(printable(path.stem), path, some[0]) for path, some in found.items()]


def _require_one_partner(found: dict[Path, list[Path]], lq: Path) -> None:
    """Check that images and degraded counterparts correspond one to one."""
    several = [(path, some) for path, some in found.items() if len(some) > 1]
    if several:
        path, some = several[0]
        raise UserError(
            f"{lq}: {' and '.join(partner.name for partner in some)} are both degraded counterparts of {path} ({len(several)} in "
            "total), expected one: remove the other"
        )
    owners: dict[Path, Path] = {}
    shared = [(owners[some[0]], path, some[0]) for path, some in found.items() if owners.setdefault(some[0], path) != path]
    if shared:
        first, second, partner = shared[0]
        raise UserError(
            f"{partner}: is the degraded counterpart of both {first.name} and {second.name} ({len(shared)} in total), expected one "
            "clean image: rename the images"
        )


class TrainingImages(Protocol):
    """Interface of training sets: access to images by index, and the draw of a random image."""

    scale: int
    """Scale factor from LQ to HQ."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def name(self, i: int) -> str:
        """Return the path of image i, for messages."""
        ...

    @property
    def has_lq(self) -> bool:
        """Whether all degraded images are read from disk."""
        ...

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in pixels, cropped to multiples of the scale."""
        ...

    def whole_size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in its file, in pixels."""
        ...

    def fingerprint(self, i: int) -> str | None:
        """Return the fingerprint of the whole clean image i, or None if it is not known without decoding."""
        ...

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i as in its file: [*whole_size(i), 3], uint8, read-only."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the index of a random image."""
        ...

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i: [*size(i), 3], uint8, read-only. For packed images, only the rows that are accessed are read."""
        ...

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Return degraded image i from disk: [H / scale, W / scale, 3], uint8; None if there is no file."""
        ...


def crop_to_multiples(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Crop [H, W, C] at the right and bottom to multiples of the scale (modcrop); returns a view."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def require_patches(images: TrainingImages, patch: int) -> None:
    """Check that every clean image is at least `patch` pixels high and wide.

    Raises:
        UserError: an image is smaller.
    """
    sides = [min(images.size(i)) for i in range(len(images))]
    small = [i for i, side in enumerate(sides) if side < patch]
    if small:
        height, width = images.size(small[0])
        raise UserError(
            f"{images.name(small[0])}: {width}x{height} pixels, smaller than the training patch of {patch}x{patch} "
            f"({len(small)} such images): remove them, set patch_size={min(sides) // images.scale} or less, or pad them by reflection "
            "with data.mirror_small=true"
        )


def mismatched_pairs(clean: Sequence[ImageHeader], degraded: Sequence[ImageHeader | None], scale: int) -> list[str]:
    """Describe the pairs whose clean image, cropped to multiples of the scale, is not `scale` times as large as the degraded one."""
    return [
        f"{header.path.name} {header.width}x{header.height} with {partner.path.name} {partner.width}x{partner.height}"
        for header, partner in zip(clean, degraded, strict=True)
        if partner is not None and (partner.height, partner.width) != (header.height // scale, header.width // scale)
    ]


def check_pairs(clean: Sequence[ImageHeader], degraded: Sequence[ImageHeader | None], scale: int) -> None:
    """Check that the sizes of all pairs match the scale.

    Raises:
        UserError: some do not.
    """
    mismatched = mismatched_pairs(clean, degraded, scale)
    if mismatched:
        raise UserError(
            f"{len(mismatched)} of {len(clean)} pairs do not match: expected clean images {scale} times as large as the degraded ones "
            f"(task scale {scale}), the first: {'; '.join(mismatched[:3])}"
        )


class FolderImages:
    """The image files of a training set, decoded on demand, with a cache of limited size.

    The constructor reads the header of every file, so damaged or mismatched images are reported before training starts.

    Args:
        pairs: the files.
        scale: scale factor from LQ to HQ.
        cache_bytes: size of the cache of decoded images in each reading process, in bytes.
        pack: arguments of `prepare_data.py pack` to suggest if decoding is slow; None disables the suggestion.
        max_megapixels: the largest image to accept, in millions of pixels.

    Raises:
        UserError: a file is damaged, too large or of an unsupported kind, or the sizes of clean and degraded images do not match.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        scale: int,
        cache_bytes: int = 2 << 30,
        pack: str | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.cache_bytes = cache_bytes
        self.clock = DecodingClock(pack)
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._cached = 0
        self.max_megapixels = max_megapixels
        self.headers = [read_header(pair.hq, max_megapixels) for pair in self.pairs]
        degraded = [read_header(pair.lq, max_megapixels) if pair.lq else None for pair in self.pairs]
        check_pairs(self.headers, degraded, scale)
        self._lq_sizes = [(header.height, header.width) if header else None for header in degraded]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def has_lq(self) -> bool:
        """Whether every image has a degraded file."""
        return all(pair.lq for pair in self.pairs)

    def name(self, i: int) -> str:
        """Return the path of clean image i."""
        return str(self.pairs[i].hq)

    def size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in pixels, cropped to multiples of the scale."""
        header = self.headers[i]
        return header.height - header.height % self.scale, header.width - header.width % self.scale

    def whole_size(self, i: int) -> tuple[int, int]:
        """Return height and width of clean image i in its file, in pixels."""
        return self.headers[i].height, self.headers[i].width

    def fingerprint(self, i: int) -> None:
        """Return None: the fingerprint is not known without decoding."""

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the index of a random image, uniformly."""
        return int(rng.integers(len(self.pairs)))

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i, cropped to multiples of the scale: [H, W, 3], uint8."""
        self.clock.count_sample()
        return crop_to_multiples(self.whole_hq(i), self.scale)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Return clean image i as in its file: [H, W, 3], uint8."""
        return self._pixels(self.pairs[i].hq, self.whole_size(i))

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Return degraded image i from disk: [H, W, 3], uint8; None if there is no file."""
        path, size = self.pairs[i].lq, self._lq_sizes[i]
        return None if path is None or size is None else self._pixels(path, size)

    def _pixels(self, path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        with self.clock.decoding():
            pixels = read_image(path, self.max_megapixels)
        if pixels.shape[:2] != size:
            raise UserError(
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {size[1]}x{size[0]} as at the start of training: the file "
                "was replaced; restore it, or start a new run"
            )
        self._cache[path] = pixels
        self._cached += pixels.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def __getstate__(self) -> dict[str, object]:
        """Exclude the cache: a worker process starts with an empty one."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached": 0}


class DecodingClock:
    """Measures the fraction of time spent decoding and logs it once, with a suggestion to pack the set.

    Args:
        pack: arguments of `prepare_data.py pack` to suggest; None disables the message.
    """

    SAMPLES = 300
    """Number of samples to measure."""

    def __init__(self, pack: str | None) -> None:
        self.pack = pack
        self._samples = 0
        self._started = 0.0
        self._seconds = 0.0

    def count_sample(self) -> None:
        """Count a sample; call before reading it."""
        if self._samples == 0:
            self._started = time.perf_counter()
        elif self._samples == self.SAMPLES and self.pack is not None:
            self._report(time.perf_counter() - self._started)
        self._samples += 1

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Measure the time of decoding an image."""
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def _report(self, seconds: float) -> None:
        worker = get_worker_info()
        if worker is not None and worker.id > 0:
            return
        reader = "a training step" if worker is None else "a worker"
        _log.info(
            "data: decoding image files took %.0f %% of the time of %s (%.1f ms per sample, over the first %d); "
            "to avoid this, run python scripts/prepare_data.py pack %s",
            100 * self._seconds / seconds, reader, 1000 * self._seconds / self.SAMPLES, self.SAMPLES, self.pack,
        )  # fmt: skip
