"""Lookup of classes by their dotted names in configurations."""

import pkgutil
from collections.abc import Callable
from typing import Any

from irformer.errors import UserError
from irformer.schema.phrases import show


def locate(target: str) -> Callable[..., Any]:
    """Import a class or function by its dotted name.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return pkgutil.resolve_name(target)
    except Exception as error:  # importing may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"_target_={show(target)}: cannot be imported ({reason})") from None
