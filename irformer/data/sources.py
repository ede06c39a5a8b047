"""The images of a training set: which files belong together, their sizes, and the pixels of any part of them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from irformer.data.catalog import SAMPLE, SAMPLE_TRAIN, TRAINING_SETS, find_folder, missing_set, sample_photos
from irformer.data.images import ImageHeader, list_images, read_header, read_image
from irformer.errors import UserError

WHOLE = slice(None)


@dataclass(frozen=True)
class ImagePair:
    """A clean image and, where it exists on disk, its degraded counterpart."""

    name: str
    hq: Path
    lq: Path | None = None


def find_training_set(name: str, root: Path, scale: int) -> list[ImagePair]:
    """The pairs of a known training set below root.

    Args:
        name: a name of the catalog, or `sample` for the bundled photographs.
        root: the data folder.
        scale: the factor whose official LR images are taken where they exist.

    Raises:
        UserError: the set is unknown, or not on disk.
    """
    if name == SAMPLE:
        return [ImagePair(path.stem, path) for path in sample_photos(SAMPLE_TRAIN)]
    if name not in TRAINING_SETS:
        raise UserError(f"unknown training set {name}; known: {', '.join([*TRAINING_SETS, SAMPLE])}")
    known = TRAINING_SETS[name]
    hq = find_folder(root, known.hq)
    if hq is None:
        raise missing_set(name, root, known.hq, known.source)
    lq = find_folder(root, tuple(folder.format(scale=scale) for folder in known.lq)) if scale > 1 else None
    return pair_folders(hq, lq, scale)


def pair_folders(hq: Path, lq: Path | None, scale: int) -> list[ImagePair]:
    """Pair the images of two folders by name: `0001.png` with `0001.png` or `0001x2.png`; without lq every image stands alone.

    Raises:
        UserError: a folder is missing or empty, or images have no partner (the first are named).
    """
    images = list_images(hq, "name the folder of clean images by data.path=FOLDER, or its parent by the variable IRFORMER_DATA")
    if lq is None:
        return [ImagePair(path.stem, path) for path in images]
    partners = {path.stem: path for path in list_images(lq, "name the folder of degraded images by data.lq_path=FOLDER, or leave it out")}
    found = {path.stem: partners.get(f"{path.stem}x{scale}", partners.get(path.stem)) for path in images}
    alone = [name for name, partner in found.items() if partner is None]
    if alone:
        raise UserError(
            f"{len(alone)} of {len(images)} images of {hq} have no degraded partner in {lq} "
            f"(by the name NAME or NAMEx{scale}), the first: {', '.join(alone[:5])}"
        )
    return [ImagePair(path.stem, path, found[path.stem]) for path in images]


class TrainingImages(Protocol):
    """What training samples are cut from: images by number, any part of them, and how a sample draws its image."""

    scale: int
    """HQ pixels for each LQ pixel."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def name(self, i: int) -> str:
        """How messages call image i: the path of its file."""
        ...

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        ...

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image."""
        ...

    def hq(self, i: int, rows: slice = WHOLE, columns: slice = WHOLE) -> NDArray[np.uint8]:
        """A part of clean image i: [h, w, 3], uint8, not to be written to."""
        ...

    def lq(self, i: int, rows: slice = WHOLE, columns: slice = WHOLE) -> NDArray[np.uint8] | None:
        """A part of degraded image i from disk: [h, w, 3], uint8; None where there is no file. Rows and columns count LQ pixels."""
        ...


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
            f"({len(small)} such images): remove them, or set patch_size={min(sides) // images.scale} or less"
        )


class FolderImages:
    """The files of a training set, decoded on demand and kept within a budget of memory.

    Building it reads the header of every file, so that a damaged, unfit or too small image is named before training starts.

    Args:
        pairs: the files.
        scale: HQ pixels for each LQ pixel.
        cache_bytes: decoded images kept in memory, in bytes, for each process that reads.
    """

    def __init__(self, pairs: Sequence[ImagePair], scale: int, cache_bytes: int = 2 << 30) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.cache_bytes = cache_bytes
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._cached = 0
        self.headers = [read_header(pair.hq) for pair in self.pairs]
        self._check_pairs([read_header(pair.lq) if pair.lq else None for pair in self.pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of clean image i in pixels, cut to multiples of the scale."""
        header = self.headers[i]
        return header.height - header.height % self.scale, header.width - header.width % self.scale

    def name(self, i: int) -> str:
        """The path of clean image i."""
        return str(self.pairs[i].hq)

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a random image, all alike."""
        return int(rng.integers(len(self.pairs)))

    def hq(self, i: int, rows: slice = WHOLE, columns: slice = WHOLE) -> NDArray[np.uint8]:
        """A part of clean image i: [h, w, 3], uint8."""
        return self._pixels(self.pairs[i].hq)[rows, columns]

    def lq(self, i: int, rows: slice = WHOLE, columns: slice = WHOLE) -> NDArray[np.uint8] | None:
        """A part of degraded image i from disk: [h, w, 3], uint8; None where there is no file."""
        path = self.pairs[i].lq
        return None if path is None else self._pixels(path)[rows, columns]

    def _check_pairs(self, partners: list[ImageHeader | None]) -> None:
        unfit = [
            f"{header.path.name} {header.width}x{header.height} with {partner.path.name} {partner.width}x{partner.height}"
            for i, (header, partner) in enumerate(zip(self.headers, partners, strict=True))
            if partner is not None and (partner.height * self.scale, partner.width * self.scale) != self.size(i)
        ]
        if unfit:
            raise UserError(
                f"{len(unfit)} of {len(self.pairs)} pairs do not fit: the clean image must be {self.scale} times the degraded one "
                f"(task scale {self.scale}), the first: {'; '.join(unfit[:3])}"
            )

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        pixels = read_image(path)
        self._cache[path] = pixels
        self._cached += pixels.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def __getstate__(self) -> dict[str, object]:
        """A worker process starts with an empty cache of its own."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached": 0}
