"""The order of a run's callbacks. Lightning calls them as they stand in the list, and some depend on what others did before.

A class states its place by attributes: `first = True` (it precedes all others), `last = True` (it follows all others), and
`precedes = (Class, ...)` (it precedes callbacks of these classes).
"""

from collections.abc import Sequence

import lightning


def require_order(callbacks: Sequence[lightning.Callback]) -> None:
    """Check that every callback stands where it says it must.

    Raises:
        ValueError: one does not; both callbacks are named.
    """
    for place, callback in enumerate(callbacks):
        before, after = callbacks[:place], callbacks[place + 1 :]
        wrong = [
            *(before if getattr(callback, "first", False) else ()),
            *(other for other in before if isinstance(other, getattr(callback, "precedes", ()))),
        ]
        if wrong:
            raise ValueError(f"{_name(callback)} must precede {_name(wrong[0])} in the list of callbacks")
        if getattr(callback, "last", False) and after:
            raise ValueError(f"{_name(callback)} must follow {_name(after[0])} in the list of callbacks")


def _name(callback: lightning.Callback) -> str:
    return type(callback).__name__
