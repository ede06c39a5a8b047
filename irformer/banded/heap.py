"""The memory that a process holds although nothing uses it, and how it returns to the system."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

_PAGES = Path("/proc/self/statm")


def return_freed_memory() -> None:
    """Return freed memory to the system where the C library has a function for it; otherwise glibc keeps what lies between tensors."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def held_bytes() -> int:
    """Return the memory of the host that this process holds; 0 where the system does not tell."""
    if not _PAGES.exists():
        return 0
    import resource  # which Windows does not have

    return int(_PAGES.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


class Heap:
    """Returns freed memory when the process holds more than it may.

    Over hundreds of bands, tensors of various sizes leave gaps that glibc neither uses nor returns: the process can hold several times what
    its tensors need. Returning them after every band would be slow, since the next band takes them again.

    Args:
        room: bytes by which the process may grow before freed memory is returned.
        held: returns the bytes that the process holds.
    """

    def __init__(self, room: int, held: Callable[[], int] = held_bytes) -> None:
        self._room = room
        self._held = held
        self._limit = held() + room

    def check(self) -> None:
        """Return freed memory if the process has grown beyond its room."""
        if self._held() > self._limit:
            return_freed_memory()
            # What remains is in use, perhaps by other threads: there is nothing to return until the process grows again.
            self._limit = max(self._limit, self._held() + self._room // 4)
