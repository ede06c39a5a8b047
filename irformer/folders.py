"""Where irformer's own files are."""

from pathlib import Path

_PACKAGED = Path(__file__).parent / "configs"
# In a clone the configurations lie at the top, for people to read and change; an installed package has its own copy.
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "configs"
