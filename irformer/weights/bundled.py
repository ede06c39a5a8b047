"""The weights in the package: small networks of irformer's own, named anywhere a checkpoint is expected."""

from pathlib import Path

_FOLDER = Path(__file__).with_name("bundled_files")
WEIGHTS = "model.safetensors"


def bundled_names() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(file.parent.name for file in _FOLDER.glob(f"*/{WEIGHTS}"))


def bundled_file(name: str) -> Path | None:
    """Return the file of the weights with this name, or None if the package has none."""
    return _FOLDER / name / WEIGHTS if name in bundled_names() else None
