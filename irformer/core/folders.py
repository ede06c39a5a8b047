"""Paths of irformer's own files."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_PACKAGED = _PACKAGE / "configs"
# In a clone the configurations are at the top level, easy to read and change; an installed package has its own copy.
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "configs"
