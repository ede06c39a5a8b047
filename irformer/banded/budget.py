"""Amounts of memory: in words, and what is free. Importing it loads no torch, so that a command line is checked at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from irformer.errors import UserError

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
# Of the free memory, the part that `auto` takes; other processes need some, too.
_AUTO = 0.8


def parse_bytes(memory: str | int) -> int | None:
    """Return an amount of memory in bytes, and None for `auto`.

    Args:
        memory: a number of bytes, or a number with a unit, such as 500MB, 2GB or 1.5GiB; or `auto`.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(memory, str) and memory.strip().lower() == "auto":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", str(memory).strip().upper())
    count = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if count < 1:
        raise UserError(f"memory={memory}: expected an amount such as 500MB, 2GB or 1.5GiB, or auto")
    return count


def shown_bytes(count: float) -> str:
    """Return an amount of memory in words, rounded up to whole megabytes."""
    return f"{-(-int(count) // 10**6):,} MB"


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that `auto` takes: 80 % of what is free.

    Raises:
        UserError: the system does not say.
    """
    if device.type == "cuda":
        import torch

        return int(_AUTO * torch.cuda.mem_get_info(device)[0])
    file = Path("/proc/meminfo")
    if device.type != "cpu" or not file.exists():
        raise UserError(f"memory=auto: the free memory of {device} is unknown on this system; give an amount such as 2GB")
    available = next(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("MemAvailable:"))
    return int(_AUTO * min([1024 * int(available.split()[1]), *_left_to_container()]))


def _left_to_container() -> list[int]:
    """Return what the limit of the process's control group leaves, if there is one: page cache can be reclaimed and does not count."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text(encoding="utf-8").strip() for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0)))]
