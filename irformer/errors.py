"""What a user's mistake raises."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or key, what was expected, what was found and what to do.

    The commands print its message as one line and exit with status 1; everything else keeps its traceback.
    """


def without_traceback(error: UserError) -> UserError:
    """A mistake that came up in a process that reads data, as it was raised there: PyTorch hands it on inside the text of a traceback."""
    first, *lines = str(error).strip().splitlines()
    mark = f"{UserError.__module__}.{UserError.__qualname__}: "
    raised = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
    return UserError(raised[-1]) if raised and first.startswith("Caught UserError in DataLoader worker") else error


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Prefix user errors raised inside with what they are about, for functions that do not know it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}{error}") from error.__cause__
