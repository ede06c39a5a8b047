"""Where irformer's own files are."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_PACKAGED = _PACKAGE / "configs"
# In a clone the configurations lie at the top, for people to read and change; an installed package has its own copy.
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "configs"
