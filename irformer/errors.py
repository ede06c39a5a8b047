"""The exception for user errors, and helpers for its message."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """An error that the user can fix: the message names the file or key, what was found, what was expected and the remedy.

    The commands print the message as one line and exit with status 1. All other exceptions keep their traceback.
    """


def without_traceback(error: UserError) -> UserError:
    """Recover a user error raised in a data-loading worker: PyTorch re-raises it with the worker's traceback as its message."""
    first, *lines = str(error).strip().splitlines()
    mark = f"{UserError.__module__}.{UserError.__qualname__}: "
    raised = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
    return UserError(raised[-1]) if raised and first.startswith("Caught UserError in DataLoader worker") else error


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Prefix the message of any user error raised inside the block with its subject."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}{error}") from error.__cause__
