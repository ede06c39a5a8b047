"""Folders of image pairs: the subfolders of degraded and clean images, and the scale between them."""

import re
from collections.abc import Sequence
from pathlib import Path

from irformer.data.sources import find_lq, known_set
from irformer.datasets.catalog import SAMPLE, find_folder, missing_set
from irformer.errors import UserError
from irformer.imaging.images import list_images, read_header

SCALES = (1, 2, 3, 4, 8)
# Subfolders of clean and degraded images; the first that exists is used. Those of super-resolution contain their scale.
HQ_FOLDERS = ("HR", "GTmod{scale}", "GTmod12", "original", "target", "gt")
LR_FOLDERS = ("LR_bicubic/X{scale}", "LRbicx{scale}")
CLEAN_FOLDERS = (*HQ_FOLDERS, "GT", "HQ", "hq", "clean", "groundtruth")
DEGRADED_FOLDERS = ("input", "rain", "LQ", "lq", "LR", "noisy")

_LAYOUT = "input and target"
_SET_SCALE = "set task.scale=N"


def clean_half(folder: Path, scale: int = 1) -> Path | None:
    """Return the subfolder of clean images in a folder of pairs, or None."""
    return find_folder(folder, tuple(name.format(scale=scale) for name in CLEAN_FOLDERS))


def degraded_half(folder: Path, scale: int = 1) -> Path | None:
    """Return the subfolder of degraded images for a scale in a folder of pairs, or None."""
    scaled = tuple(name.format(scale=scale) for name in LR_FOLDERS) if scale > 1 else ()
    return find_folder(folder, (*scaled, *DEGRADED_FOLDERS))


def training_halves(folder: Path, lq: Path | None, scale: int) -> tuple[Path, Path | None]:
    """Return the folders of the clean and the degraded training images.

    Args:
        folder: folder of the clean images, or of pairs if it has subfolders for both, such as `input` and `target`.
        lq: folder of the degraded images, if the user specifies it.
        scale: scale factor from LQ to HQ.
    """
    clean, degraded = clean_half(folder, scale), degraded_half(folder, scale)
    return (clean, degraded) if lq is None and clean is not None and degraded is not None else (folder, lq)


def scale_of_folder(folder: Path, lq: Path | None = None) -> int:
    """Determine the scale of a folder of pairs from the sizes of the first pair; readers of the pairs check the others.

    Args:
        folder: as in `training_halves`.
        lq: folder of the degraded images, if the user specifies it.

    Raises:
        UserError: there are no pairs, their sizes match no scale or more than one, or there are degraded images for several scales.
    """
    if lq is None:
        clean, lq = clean_half(folder), degraded_half(folder)
        if lq is None:
            scale = _only_scale(folder, [scale for scale in SCALES[1:] if degraded_half(folder, scale)])
            clean, lq = clean_half(folder, scale), degraded_half(folder, scale)
        folder = clean or folder
        assert lq is not None
    hq, partner = _first_pair(folder, lq)
    return _scale_between(hq, partner)


def scale_of_set(name: str, root: Path) -> int:
    """Return the scale of a known training set of pairs.

    Raises:
        UserError: the set is unknown or not on disk, or it has no degraded images, or images for several scales.
    """
    if name == SAMPLE:
        raise UserError(f"data.sets=[{SAMPLE}] has no degraded images: specify a folder of pairs with data=folder data.path=FOLDER")
    folder = find_folder(root, known_set(name).hq)
    if folder is None:
        raise missing_set(name, root, known_set(name).hq)
    return _only_scale(folder, [scale for scale in SCALES if find_lq(name, root, scale)])


def _only_scale(folder: Path, scales: Sequence[int]) -> int:
    if not scales:
        raise UserError(
            f"{folder}: no pairs; expected the folders {_LAYOUT}, with images of the same names, or data.lq_path=FOLDER as well"
        )
    if len(scales) > 1:
        raise UserError(f"{folder}: has degraded images for the scales {', '.join(map(str, scales))}; {_SET_SCALE}")
    return scales[0]


def _first_pair(clean: Path, degraded: Path) -> tuple[Path, Path]:
    """Return the first clean image and its degraded counterpart, `NAME` or `NAMExSCALE`."""
    hq = list_images(clean, "set data.path=FOLDER to the folder of clean images")[0]
    candidates = list_images(degraded, "set data.lq_path=FOLDER to the folder of degraded images")
    partners = [path for path in candidates if path.stem == hq.stem or re.fullmatch(rf"{re.escape(hq.stem)}x\d+", path.stem)]
    if not partners:
        raise UserError(f"{hq} has no degraded counterpart in {degraded} (named {hq.stem} or {hq.stem}xSCALE): add it, or remove the image")
    if len(partners) > 1:
        raise UserError(f"{degraded}: {' and '.join(path.name for path in partners)} are both degraded counterparts of {hq}; {_SET_SCALE}")
    return hq, partners[0]


def _scale_between(hq: Path, lq: Path) -> int:
    """Return the scale at which the clean size, cropped to multiples of the scale, is a multiple of the degraded size."""
    clean, degraded = read_header(hq), read_header(lq)
    sizes = f"{hq} is {clean.width}x{clean.height} and {lq} {degraded.width}x{degraded.height}"
    fitting = [s for s in range(1, 65) if (clean.height // s, clean.width // s) == (degraded.height, degraded.width)]
    exact = [s for s in fitting if (clean.height, clean.width) == (s * degraded.height, s * degraded.width)]
    if not fitting:
        raise UserError(f"{sizes}: expected a clean image 1, 2, 3, ... times as large as the degraded one; fix or remove the pair")
    if len(fitting) > 1 and not exact:
        raise UserError(f"{sizes}, which matches the scales {', '.join(map(str, fitting))}; {_SET_SCALE}")
    return (exact or fitting)[0]
