"""Folders of configuration files: irformer's own, and those of installed packages that extend it."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from irformer.errors import UserError

PACKAGE = Path(__file__).parent.parent
_PACKAGED = PACKAGE / "configs"
# In a clone, the configurations are at the top level, where users edit them; an installed package contains a copy.
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else PACKAGE.parent / "configs"

ENTRY_POINTS = "irformer.configs"


@dataclass(frozen=True)
class ConfigPackage:
    """An installed package that adds config groups.

    Args:
        distribution: name of the distribution, as in `pip list`.
        package: package whose classes files may name, the parent of the configuration folder.
        folder: folder of the config groups, such as `norm/NAME.yaml`.
    """

    distribution: str
    package: str
    folder: Path


def config_packages() -> tuple[ConfigPackage, ...]:
    """Return the installed packages with an entry point in the group `irformer.configs`, without importing them.

    Raises:
        UserError: an entry point does not name a folder.
    """
    return _packages_on(tuple(sys.path))


@cache
def _packages_on(_path: tuple[str, ...]) -> tuple[ConfigPackage, ...]:
    points = {(point.name, point.value): point for point in metadata.entry_points(group=ENTRY_POINTS)}
    return tuple(_config_package(point) for _, point in sorted(points.items()))


def _config_package(point: metadata.EntryPoint) -> ConfigPackage:
    distribution = point.dist.name if point.dist is not None else point.name
    top, *inner = point.module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # finds a package without importing it
    except (ImportError, ValueError):
        spec = None
    locations = spec.submodule_search_locations if spec is not None and not point.attr else None
    folder = next((path for location in locations or () if (path := Path(location, *inner)).is_dir()), None)
    if folder is None:
        raise UserError(
            f"the installed package {distribution}: its entry point {ENTRY_POINTS} names {point.value}, expected a package such as "
            f"mypkg.configs with folders such as norm/; reinstall it, or pip uninstall {distribution}"
        )
    return ConfigPackage(distribution, point.module.rpartition(".")[0] or point.module, folder)


def require_new_names(folders: Sequence[Path]) -> None:
    """Check that all configuration files have different names, because Hydra silently uses the first file with a name.

    Args:
        folders: configuration folders in search order, after irformer's own.

    Raises:
        UserError: two folders contain a file with the same name.
    """
    before: list[Path] = [CONFIGS]
    for folder in folders:
        for other in before:
            taken = next((name for name in _files(other) if (folder / name).is_file()), None)
            if taken is not None:
                owner = "irformer" if other is CONFIGS else str(other)
                raise UserError(f"{folder / taken}: {owner} already has {taken}, which cannot be replaced; rename your file")
        before.append(folder)


@cache
def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(file.relative_to(folder) for file in folder.rglob("*.yaml")))


def typed_config_dir(words: Sequence[str]) -> Path | None:
    """Return the folder of Hydra's option `--config-dir` on a command line, or None."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            return Path(value if equals else following).absolute()
    return None
