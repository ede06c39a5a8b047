"""Packing training sets into stores, verifying both, and opening a set from its store or its files."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irformer.data.inventory import clean_folder, degraded_folder
from irformer.data.sources import (
    FolderImages,
    ImagePair,
    TrainingImages,
    find_lq,
    find_training_set,
    known_set,
    mismatched_pairs,
    pair_folders,
)
from irformer.data.store import HQ, INDEX, PackedImages, Store, StoredImage, changes, lq_role, pack, pixels_checksum
from irformer.datasets.catalog import SAMPLE, TEST_SETS, TRAINING_SETS, find_folder, missing_set
from irformer.errors import UserError
from irformer.imaging.images import MAX_MEGAPIXELS, fingerprint, list_images, read_header, read_image, read_intact_image

OnProgress = Callable[[int, int, str], None]
"""Called after each file with the number of finished files, the total, and the file's name."""

_SCALES = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class Source:
    """A training set for one scale: its files, and the name of its store.

    Args:
        name: the argument of `prepare_data.py pack`; None for photos that are not packed.
        store: folder name of its store.
        folder: folder of the clean images.
        pairs: its files; None if only the store is on disk.
        lq_files: whether to use degraded images from disk.
    """

    name: str | None
    store: str
    folder: Path
    pairs: list[ImagePair] | None
    lq_files: bool


def set_source(name: str, root: Path, scale: int, lq_files: bool) -> Source:
    """Find a known training set below root; if its files are missing, `pairs` is None.

    Raises:
        UserError: the set is unknown, or its files cannot be paired.
    """
    if name == SAMPLE:
        pairs = find_training_set(name, root, scale)
        return Source(None, name, pairs[0].hq.parent, pairs, False)
    hq = find_folder(root, known_set(name).hq)
    pairs_there = find_training_set(name, root, scale, lq_files) if hq else None
    return Source(name, name, hq or root / known_set(name).hq[0], pairs_there, lq_files)


def folder_source(hq: Path, lq: Path | None, scale: int) -> Source:
    """Describe a folder of clean images and an optional folder of degraded ones as a training set.

    Raises:
        UserError: a folder is missing or empty, or its files cannot be paired.
    """
    return Source(str(hq) + (f" --lq {lq}" if lq else ""), store_name(hq), hq, pair_folders(hq, lq, scale), lq is not None)


def store_name(folder: Path) -> str:
    """Name the store of a folder: its last two path components and a digest of the path, because others may share these components."""
    path = folder.resolve()
    return "-".join([*path.parts[-2:], hashlib.blake2b(os.fsencode(path), digest_size=3).hexdigest()]).replace("/", "")


def open_source(
    source: Source, packed: Path | None, scale: int, cache_bytes: int, max_megapixels: float = MAX_MEGAPIXELS
) -> tuple[TrainingImages, str | None]:
    """Open a training set: from its store if that is up to date, otherwise from its files.

    Args:
        source: the set.
        packed: folder of the packed stores; None reads the files.
        scale: HQ pixels per LQ pixel.
        cache_bytes: memory for decoded image files.
        max_megapixels: largest accepted image file, in millions of pixels.

    Returns:
        The images, and the reason if an existing store is not used.

    Raises:
        UserError: neither files nor store exist, or files are damaged or their sizes do not match.
    """
    folder = packed / source.store if packed is not None else None
    remark = None
    if folder is not None and (folder / INDEX).is_file():
        store = Store(folder)
        if source.pairs is None:
            return PackedImages(store, source.folder, scale, source.lq_files and lq_role(scale) in store.roles), None
        roles = {HQ: [pair.hq for pair in source.pairs]}
        lq = [pair.lq for pair in source.pairs if pair.lq is not None]
        if lq:
            roles[lq_role(scale)] = lq
        changed = changes(store, roles)
        if not changed:
            return PackedImages(store, source.folder, scale, bool(lq)), None
        remark = f"the packed store is not used: {changed[0]} ({len(changed)} such); scripts/prepare_data.py pack {source.name} updates it"
    if source.pairs is None:
        known = known_set(source.store)
        raise missing_set(source.store, packed.parent if packed else source.folder, known.hq)
    return FolderImages(source.pairs, scale, cache_bytes, source.name, max_megapixels), remark


def pack_set(name: str, root: Path, packed: Path | None, lq: Path | None, on_progress: OnProgress) -> Path:
    """Pack a training set, including its degraded images; an older store is replaced.

    Args:
        name: a known training set, or a folder of clean images.
        root: the data folder.
        packed: folder of the packed stores; None means `packed` below the data folder.
        lq: folder of degraded images for a folder of clean ones; known sets have their own.
        on_progress: called after each file.

    Returns:
        The folder of the store.

    Raises:
        UserError: the set is unknown or not on disk, a file is damaged, sizes of pairs do not match, the disk is too small, or the store
            cannot be written.
    """
    name = _catalog_name(name)
    roles = _roles(name, root, lq)
    unfit = _unfit(roles)
    if unfit:
        raise UserError(f"{len(unfit)} pairs of {name} do not match, the first: {unfit[0]}")
    total, done = sum(len(paths) for paths in roles.values()), 0

    def count(path: Path) -> None:
        nonlocal done
        done += 1
        on_progress(done, total, path.name)

    folder = (packed or root / "packed") / (name if name in TRAINING_SETS else store_name(Path(name)))
    pack(folder, roles, count)
    return folder


def verify_set(name: str, root: Path, packed: Path | None, lq: Path | None, on_progress: OnProgress) -> list[str]:
    """Decode every file of a set, check the sizes of pairs, and compare an existing store with its sources and its own index.

    Args:
        name: a known training or test set, or a folder of clean images.
        root: the data folder.
        packed: folder of the packed stores; None means `packed` below the data folder.
        lq: folder of degraded images for a folder of clean ones; known sets have their own.
        on_progress: called after each file.

    Returns:
        One line per problem; an empty list if there is none.

    Raises:
        UserError: the set is unknown, or neither its files nor its store are on disk.
    """
    name = _catalog_name(name)
    if name in TEST_SETS:
        return _verify_test_set(name, root, on_progress)
    folder = (packed or root / "packed") / (name if name in TRAINING_SETS else store_name(Path(name)))
    has_store = (folder / INDEX).is_file()
    only_store = has_store and name in TRAINING_SETS and find_folder(root, known_set(name).hq) is None
    roles = {} if only_store else _roles(name, root, lq)
    lines = _damaged([path for paths in roles.values() for path in paths], on_progress)
    if not lines:  # sizes of unreadable files are not known
        lines = [f"{name}: {pair} do not match" for pair in _unfit(roles)]
    return lines + (_verify_store(folder, roles) if has_store else [])


def _damaged(paths: list[Path], on_progress: OnProgress) -> list[str]:
    lines = []
    for done, path in enumerate(paths, start=1):
        try:
            read_intact_image(path)
        except UserError as error:
            lines.append(str(error))
        on_progress(done, len(paths), path.name)
    return lines


def _verify_test_set(name: str, root: Path, on_progress: OnProgress) -> list[str]:
    """Verify a test set, with the degraded files of every scale, including those of the same size (rain)."""
    clean = clean_folder(name, root)
    if clean is None:
        raise missing_set(name, root, TEST_SETS[name])
    degraded = {scale: folder for scale in _SCALES if (folder := degraded_folder(name, root, scale))}
    pairs = {scale: pair_folders(clean, folder, scale) for scale, folder in degraded.items()}
    files = {pair.hq for pair in pair_folders(clean, None, 1)} | {path for some in pairs.values() for path in _lq_files(some)}
    lines = _damaged(sorted(files), on_progress)
    if lines:  # sizes of unreadable files are not known
        return lines
    for scale, some in pairs.items():
        most = 12 if scale > 1 else 1  # LR may have been made from clean images cropped to multiples of 12 (GTmod12)
        for pair in some:
            hq, lq = read_header(pair.hq), read_header(pair.lq) if pair.lq else None
            if lq and not (0 <= hq.height - scale * lq.height < most and 0 <= hq.width - scale * lq.width < most):
                sizes = f"{hq.path} is {hq.width}x{hq.height} and {lq.path} {lq.width}x{lq.height}"
                lines.append(f"{sizes}: the sizes do not match at scale {scale}")
    return lines


def _verify_store(folder: Path, roles: dict[str, list[Path]]) -> list[str]:
    try:
        store = Store(folder)
    except UserError as error:
        return [str(error)]
    lines = changes(store, roles, thoroughly=True)
    for role, images in store.roles.items():
        sources = {path.name: path for path in roles.get(role, [])}
        for image in images:
            if not _as_packed(store.pixels(role, image.offset, image.height, image.width), image, sources.get(image.file)):
                lines.append(f"{store.file(role)}: the pixels of {image.file} differ from those that were packed: pack the set again")
    return lines


def _as_packed(pixels: NDArray[np.uint8], image: StoredImage, source: Path | None) -> bool:
    """Return whether the pixels of a store are those that were packed.

    Stores of format 1 have no checksum of the pixels. For these, compare the fingerprint, which ignores the order of the pixels, and the
    source file if it is on disk.
    """
    if image.pixels_checksum is not None:
        return pixels_checksum(pixels) == image.pixels_checksum
    if fingerprint(pixels) != image.pixels:
        return False
    try:
        return source is None or bool(np.array_equal(read_image(source), pixels))
    except UserError:
        return True  # the damaged source is reported on its own line


def _catalog_name(name: str) -> str:
    """Return a set's name as spelled in the catalog (`bsds400` is BSDS400, BSD100 is B100); other names are returned unchanged."""
    aliases = {alias.lower(): known for known, folders in TEST_SETS.items() for alias in folders}
    return (aliases | {known.lower(): known for known in (*TEST_SETS, *TRAINING_SETS)}).get(name.lower(), name)


def _roles(name: str, root: Path, lq: Path | None) -> dict[str, list[Path]]:
    """Return the files of a set by role: the clean ones, and the degraded ones of every scale on disk, in the same order."""
    if name in TRAINING_SETS:
        hq = [pair.hq for pair in find_training_set(name, root, 1, lq_files=False)]
        scales = [scale for scale in _SCALES if find_lq(name, root, scale)]
        return {HQ: hq} | {lq_role(scale): _lq_files(find_training_set(name, root, scale)) for scale in scales}
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"{name}: neither a training set nor a folder; known: {', '.join(TRAINING_SETS)}")
    pairs = pair_folders(folder, None, 1)
    roles = {HQ: [pair.hq for pair in pairs]}
    if lq is not None:
        scale = max(1, round(read_header(pairs[0].hq).height / read_header(list_images(lq, "specify it with --lq FOLDER")[0]).height))
        roles[lq_role(scale)] = _lq_files(pair_folders(folder, lq, scale))
    return roles


def _unfit(roles: dict[str, list[Path]]) -> list[str]:
    """Describe the pairs whose sizes do not match."""
    headers = {role: [read_header(path) for path in paths] for role, paths in roles.items()}
    lines = []
    for scale in _SCALES:
        if lq_role(scale) in headers:
            lines += mismatched_pairs(headers[HQ], headers[lq_role(scale)], scale)
    return lines


def _lq_files(pairs: Iterable[ImagePair]) -> list[Path]:
    return [pair.lq for pair in pairs if pair.lq is not None]
