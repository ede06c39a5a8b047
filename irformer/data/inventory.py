"""The known sets on disk: their folders, number of images, and whether these are the expected ones."""

from collections.abc import Sequence
from pathlib import Path

from irformer.data.sources import find_lq
from irformer.datasets.catalog import TEST_SETS, TRAINING_SETS, find_folder
from irformer.datasets.origins import ORIGINS
from irformer.imaging.images import SUFFIXES

FACTORS = (2, 3, 4, 8)
_HQ_FOLDERS = ("HR", "GTmod12", "original", "target", "gt")
_LQ_FOLDERS = ("LR_bicubic/X{scale}", "LRbicx{scale}", "input", "rain")
# Degraded images outside the set's own folder.
_LQ_BESIDE = {"DIV2K_val": ("DIV2K/DIV2K_valid_LR_bicubic/X{scale}", "DIV2K_valid_LR_bicubic/X{scale}")}
_NAMED = 5  # number of missing files that a message names


def clean_folder(name: str, root: Path) -> Path | None:
    """Return the folder of the clean images of a known set, which may be empty, or None if it does not exist."""
    if name in TRAINING_SETS:
        return find_folder(root, TRAINING_SETS[name].hq)
    folder = find_folder(root, TEST_SETS.get(name, (name,)))
    return folder and (find_folder(folder, _HQ_FOLDERS) or folder)


def degraded_folder(name: str, root: Path, scale: int) -> Path | None:
    """Return the folder of the degraded images of a known set for a factor; factor 1 means those of a paired set."""
    if name in TRAINING_SETS:
        return find_lq(name, root, scale)
    if name in _LQ_BESIDE:
        return _find_scaled(root, _LQ_BESIDE[name], scale)
    folder = find_folder(root, TEST_SETS.get(name, (name,)))
    return folder and _find_scaled(folder, _LQ_FOLDERS, scale)


def _find_scaled(place: Path, candidates: Sequence[str], scale: int) -> Path | None:
    return find_folder(place, tuple(words.format(scale=scale) for words in candidates if ("{scale}" in words) == (scale > 1)))


def count_images(folder: Path | None) -> int:
    """Count the image files in a folder; 0 if it does not exist."""
    if folder is None:
        return 0
    return sum(path.suffix.lower() in SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())


def wrong_names(name: str, root: Path) -> list[str]:
    """Compare number and names of a set's images with those expected; return one line per problem."""
    folder, origin = clean_folder(name, root), ORIGINS.get(name)
    if folder is None or origin is None:
        return []
    lines = []
    found = {path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")}
    if len(found) != origin.images:
        lines.append(f"{folder}: {len(found)} images, expected {origin.images}")
    expected = {origin.names[0].format(origin.names[1] + i) for i in range(origin.images)} if origin.names else set()
    if found & expected:  # some copies are renamed as a whole
        lines += [f"{folder}: missing {_first_of(sorted(expected - found))}"] if expected - found else []
        lines += [f"{folder}: unexpected {_first_of(sorted(found - expected))}"] if found - expected else []
    if origin.pairs and not count_images(degraded_folder(name, root, 1)):
        lines.append(f"{folder}: the degraded images are missing, expected in a folder input next to it")
    return lines


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
