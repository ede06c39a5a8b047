"""The weights in the package: small networks of irformer's own, named anywhere a checkpoint is expected."""

import os
from pathlib import Path

from irformer.core.trust import shortened
from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.weights.reading import SUFFIXES

_FOLDER = Path(__file__).with_name("bundled_files")
WEIGHTS = "model.safetensors"


def bundled_names() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(file.parent.name for file in _FOLDER.glob(f"*/{WEIGHTS}"))


def bundled_file(name: str) -> Path | None:
    """Return the file of the weights with this name, or None if the package has none."""
    return _FOLDER / name / WEIGHTS if name in bundled_names() else None


def bundled_name(file: Path) -> str | None:
    """Return the name of the weights in a file of the package, or None if the file is not one of them."""
    return file.parent.name if file.name == WEIGHTS and file.parent.parent == _FOLDER else None


def require_bundled_name(path: Path) -> None:
    """Check a path that does not exist, if it is a single word and may be meant as the name of weights in the package.

    Raises:
        UserError: no weights have this name; the message lists those in the package.
    """
    names, word = bundled_names(), str(path)
    if names and word not in names and word.isprintable() and not path.suffix and len(path.parts) == 1:
        raise UserError(
            f"{shortened(word, 300)}: no such file; expected a run's folder, a weights file ({SUFFIXES}), or the name of weights in the "
            f"package: {', '.join(names)}{nearest(word, names)}"
        )


def made_file(file: Path, suffix: str) -> Path:
    """Return where a file that is made of a weights file belongs: beside it, or in the user's cache if it is in the package."""
    name = bundled_name(file)
    if name is None:
        return file.with_name(file.name + suffix)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "irformer" / f"{name}{suffix}"
