"""Check the order of a run's callbacks. Lightning calls them in list order, and some depend on others that ran before them.

A callback class declares its position with attributes: `first = True` (precedes all others), `last = True` (follows all others), and
`precedes = (Class, ...)` (precedes callbacks of these classes).
"""

from collections.abc import Sequence

import lightning


def require_order(callbacks: Sequence[lightning.Callback]) -> None:
    """Check that each callback is at the position that it declares.

    Raises:
        ValueError: two callbacks are in the wrong order; the message names both.
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
