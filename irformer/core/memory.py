"""The memory of the host that this process can still take, its peak, and a limit that turns the lack of memory into an error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_RESERVED = 0.1  # part of the free memory that is left to other processes


def free_memory() -> int | None:
    """Return how many bytes this process can still take without swapping: what is free on the host and in its control groups.

    Returns:
        None on systems other than Linux.
    """
    try:
        available = _fields(_PROC / "meminfo")["MemAvailable"]
        group = (_PROC / "self" / "cgroup").read_text().strip().rpartition("::")[2].strip("/")
    except (OSError, KeyError, ValueError):
        return None
    folder = _CGROUPS / group
    limits = [_free_in_group(place) for place in (folder, *folder.parents) if place.is_relative_to(_CGROUPS)]
    return min([available, *(limit for limit in limits if limit is not None)])


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """Make allocations beyond the free memory fail within a block; otherwise Linux kills the process, with all the work that is left.

    The limit concerns memory of the host, not of a GPU. It does nothing on other systems.
    """
    free = free_memory()
    if free is None:
        yield
        return
    import resource  # which Windows does not have

    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [_fields(_PROC / "self" / "status")["VmData"] + int(free * (1 - _RESERVED))]
    limits += [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def restart_peak() -> int | None:
    """Forget the peak memory of this process so far.

    Returns:
        The bytes that the process holds now; None if the system cannot restart the peak.
    """
    try:
        (_PROC / "self" / "clear_refs").write_text("5")
        return _fields(_PROC / "self" / "status")["VmRSS"]
    except (OSError, KeyError):
        return None


def peak_memory() -> int:
    """Return the most bytes that this process has held since `restart_peak`, which must have succeeded."""
    return _fields(_PROC / "self" / "status")["VmHWM"]


def _free_in_group(folder: Path) -> int | None:
    """Return the free bytes of a control group (version 2); its cache of files counts as free."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        cache = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):  # the group has no limit, or it is the root
        return None
    return max(limit - used + int(cache), 0)


def _fields(file: Path) -> dict[str, int]:
    """Return the fields in kB of a file such as /proc/meminfo, in bytes."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}
