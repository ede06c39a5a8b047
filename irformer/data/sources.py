"""The images of a training set: which files belong together, their sizes, and the pixels of any part of them."""

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
    """A clean image and, where it exists on disk, its degraded counterpart."""

    name: str
    hq: Path
    lq: Path | None = None


def find_training_set(name: str, root: Path, scale: int, lq_files: bool = True) -> list[ImagePair]:
    """The pairs of a known training set below root.

    Args:
        name: a name of the catalog, or `sample` for the bundled photographs.
        root: the data folder.
        scale: the factor whose official degraded images are taken where they exist; 1 for those of the clean images' own size.
        lq_files: whether degraded images on disk are wanted.

    Raises:
        UserError: the set is unknown, or not on disk.
    """
    if name == SAMPLE:
        return [ImagePair(path.stem, path) for path in sample_photos(SAMPLE_TRAIN)]
    known = known_set(name)
    hq = find_folder(root, known.hq)
    if hq is None:
        raise missing_set(name, root, known.hq)
    return pair_folders(hq, find_lq(name, root, scale) if lq_files else None, scale)


def known_set(name: str) -> TrainingSet:
    """What the catalog says of a training set.

    Raises:
        UserError: it does not know the set.
    """
    if name not in TRAINING_SETS:
        raise UserError(f"unknown training set {name}; known: {', '.join([*TRAINING_SETS, SAMPLE])}")
    return TRAINING_SETS[name]


def find_lq(name: str, root: Path, scale: int) -> Path | None:
    """The folder of a known set's degraded images for a scale, where it exists; for pairs of one size (scale 1) the path has no factor."""
    candidates = [folder for folder in known_set(name).lq if ("{scale}" in folder) == (scale > 1)]
    return find_folder(root, tuple(folder.format(scale=scale) for folder in candidates))


def pair_folders(hq: Path, lq: Path | None, scale: int) -> list[ImagePair]:
    """Pair the images of two folders by name: `0001.png` with `0001.png` or `0001x2.png`; without lq every image stands alone.

    Raises:
        UserError: a folder is missing or empty, two images have one name, or an image has no partner or several (the first are named).
    """
    images = list_images(hq, "name the folder of clean images by data.path=FOLDER, or its parent by the variable IRFORMER_DATA")
    require_distinct_stems(images)
    if lq is None:
        return [ImagePair(printable(path.stem), path) for path in images]
    degraded = list_images(lq, "name the folder of degraded images by data.lq_path=FOLDER, or leave it out")
    require_distinct_stems(degraded)
    partners = {path.stem: path for path in degraded}
    found = {path: [partners[name] for name in (f"{path.stem}x{scale}", path.stem) if name in partners] for path in images}
    alone = [path.stem for path, some in found.items() if not some]
    if alone:
        raise UserError(
            f"{len(alone)} of {len(images)} images of {hq} have no degraded partner in {lq} "
            f"(by the name NAME or NAMEx{scale}), the first: {', '.join(alone[:5])}"
        )
    _require_one_partner(found, lq)
    return [ImagePair(printable(path.stem), path, some[0]) for path, some in found.items()]


def _require_one_partner(found: dict[Path, list[Path]], lq: Path) -> None:
    """See that each clean image has one degraded partner, and each of these one clean image."""
    several = [(path, some) for path, some in found.items() if len(some) > 1]
    if several:
        path, some = several[0]
        raise UserError(
            f"{lq}: {' and '.join(partner.name for partner in some)} are both degraded partners of {path} ({len(several)} such), expected "
            "one: remove the other"
        )
    owners: dict[Path, Path] = {}
    shared = [(owners[some[0]], path, some[0]) for path, some in found.items() if owners.setdefault(some[0], path) != path]
    if shared:
        first, second, partner = shared[0]
        raise UserError(
            f"{partner}: the degraded partner of both {first.name} and {second.name} ({len(shared)} such), expected of one: "
            "rename the images"
        )


class TrainingImages(Protocol):
    """What training samples are cut from: images by number, and how a sample draws its image."""

    scale: int
    """HQ pixels for each LQ pixel."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def name(self, i: int) -> str:
        """How messages call image i: the path of its file."""
        ...

    @property
    def has_lq(self) -> bool:
        """Whether the degraded images come from disk, all of them."""
        ...

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        ...

    def whole_size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in its file, in pixels."""
        ...

    def fingerprint(self, i: int) -> str | None:
        """The fingerprint of the whole clean image i, where it is known without decoding the image."""
        ...

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i as in its file: [*whole_size(i), 3], uint8, read-only."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image."""
        ...

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i: [*size(i), 3], uint8, read-only. Of a packed image, only the rows that are accessed are read."""
        ...

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Degraded image i from disk: [H / scale, W / scale, 3], uint8; None where there is no file."""
        ...


def crop_to_multiples(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The largest part of [H, W, C], from the top left, whose sides are multiples of the scale (modcrop): a view."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def require_patches(images: TrainingImages, patch: int) -> None:
    """See that every image holds a clean patch of `patch` pixels a side.

    Raises:
        UserError: an image is smaller; it is named.
    """
    sides = [min(images.size(i)) for i in range(len(images))]
    small = [i for i, side in enumerate(sides) if side < patch]
    if small:
        height, width = images.size(small[0])
        raise UserError(
            f"{images.name(small[0])}: {width}x{height} pixels, smaller than the training patch of {patch}x{patch} "
            f"({len(small)} such images): remove them, set patch_size={min(sides) // images.scale} or less, or continue them by their "
            "mirror image (data.mirror_small=true)"
        )


def unfit_pairs(clean: Sequence[ImageHeader], degraded: Sequence[ImageHeader | None], scale: int) -> list[str]:
    """The pairs, in words, whose clean image, cut to multiples of the scale, is not `scale` times the degraded one."""
    return [
        f"{header.path.name} {header.width}x{header.height} with {partner.path.name} {partner.width}x{partner.height}"
        for header, partner in zip(clean, degraded, strict=True)
        if partner is not None and (partner.height, partner.width) != (header.height // scale, header.width // scale)
    ]


def check_pairs(clean: Sequence[ImageHeader], degraded: Sequence[ImageHeader | None], scale: int) -> None:
    """See that all pairs fit.

    Raises:
        UserError: some do not; the first are named.
    """
    unfit = unfit_pairs(clean, degraded, scale)
    if unfit:
        raise UserError(
            f"{len(unfit)} of {len(clean)} pairs do not fit: the clean image must be {scale} times the degraded one "
            f"(task scale {scale}), the first: {'; '.join(unfit[:3])}"
        )


class FolderImages:
    """The files of a training set, decoded on demand and kept within a budget of memory.

    Building it reads the header of every file, so that a damaged, unfit or too small image is named before training starts.

    Args:
        pairs: the files.
        scale: HQ pixels for each LQ pixel.
        cache_bytes: decoded images kept in memory, in bytes, for each process that reads.
        pack: what `prepare_data.py pack` would be given to end the decoding, for the hint; None says nothing.
        max_megapixels: the largest image that is accepted, in millions of pixels.

    Raises:
        UserError: a file is damaged, too large, or of a kind that is not read; or clean and degraded images do not fit.
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
        """The path of clean image i."""
        return str(self.pairs[i].hq)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        header = self.headers[i]
        return header.height - header.height % self.scale, header.width - header.width % self.scale

    def whole_size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels."""
        return self.headers[i].height, self.headers[i].width

    def fingerprint(self, i: int) -> None:
        """Not known without decoding."""

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image, all alike."""
        return int(rng.integers(len(self.pairs)))

    def hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i, cut to multiples of the scale: [H, W, 3], uint8."""
        self.clock.count_sample()
        return crop_to_multiples(self.whole_hq(i), self.scale)

    def whole_hq(self, i: int) -> NDArray[np.uint8]:
        """Clean image i as in its file: [H, W, 3], uint8."""
        return self._pixels(self.pairs[i].hq, self.whole_size(i))

    def lq(self, i: int) -> NDArray[np.uint8] | None:
        """Degraded image i from disk: [H, W, 3], uint8; None where there is no file."""
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
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, and {size[1]}x{size[0]} when training started: the file was "
                "replaced; restore it, or start a new run"
            )
        self._cache[path] = pixels
        self._cached += pixels.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def __getstate__(self) -> dict[str, object]:
        """A worker process starts with an empty cache of its own."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached": 0}


class DecodingClock:
    """Measures the share of the time that decoding takes, and says it once, with the cure.

    Args:
        pack: what `prepare_data.py pack` would be given; None says nothing.
    """

    SAMPLES = 300
    """Samples over which it measures."""

    def __init__(self, pack: str | None) -> None:
        self.pack = pack
        self._samples = 0
        self._started = 0.0
        self._seconds = 0.0

    def count_sample(self) -> None:
        """To be called before each sample is read."""
        if self._samples == 0:
            self._started = time.perf_counter()
        elif self._samples == self.SAMPLES and self.pack is not None:
            self._say(time.perf_counter() - self._started)
        self._samples += 1

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Around the decoding of an image."""
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def _say(self, seconds: float) -> None:
        worker = get_worker_info()
        if worker is not None and worker.id > 0:
            return
        reader = "a training step" if worker is None else "a worker"
        _log.info(
            "data: decoding image files took %.0f %% of the time of %s (%.1f ms a sample, over the first %d); "
            "python scripts/prepare_data.py pack %s ends that",
            100 * self._seconds / seconds, reader, 1000 * self._seconds / self.SAMPLES, self.SAMPLES, self.pack,
        )  # fmt: skip
