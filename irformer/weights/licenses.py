"""The license of a weights file, as far as the file or the model card beside it states one."""

from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from irformer.core.trust import shortened

_KEYS = ("license", "modelspec.license")  # of the metadata in .safetensors files
CARD = "README.md"
_MAX_CARD = 2**20  # bytes


def license_of(file: Path, card: Path | None = None) -> str | None:
    """Return the license that a .safetensors file names in its metadata, or a model card in its front matter.

    Args:
        file: the weights file.
        card: the model card; None for README.md in the folder of the file.

    Returns:
        The name, or None if neither states one. A file LICENSE is not read: the license of a repository need not be that of its weights.
    """
    metadata = _metadata(file)
    stated = next((metadata[key] for key in _KEYS if key in metadata), None) or _front_matter(card or file.parent / CARD).get("license")
    return shortened(stated) if isinstance(stated, str) and stated.strip() else None


def _metadata(file: Path) -> dict[str, str]:
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _front_matter(card: Path) -> dict[str, Any]:
    """Return the values between the lines --- at the start of a Markdown file; empty if it has none."""
    try:
        if card.stat().st_size > _MAX_CARD:
            return {}
        first, *lines = card.read_text(encoding="utf-8").splitlines() or [""]
        if first.strip() != "---" or "---" not in lines:
            return {}
        values = yaml.safe_load("\n".join(lines[: lines.index("---")]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
