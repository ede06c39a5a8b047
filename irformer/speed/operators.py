"""Which operators take the time of a computation, by torch.profiler."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from irformer.speed.measure import synchronize

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library writes about its own start and end


@dataclass(frozen=True)
class Share:
    """An operator's share of the time.

    Args:
        operator: its name, such as `bmm`.
        percent: its own time, without the operators that it calls, as a percentage of that of all operators.
    """

    operator: str
    percent: float


def operator_shares(call: Callable[[], object], device: torch.device, most: int = 8) -> tuple[Share, ...]:
    """Profile one call.

    Args:
        call: the computation, already warm.
        device: where it works. On a GPU, the time is that of the kernels that an operator starts.
        most: how many operators to return.

    Returns:
        The operators with the largest shares, the largest first.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        call()
        synchronize(device)
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
    own = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    total = sum(own.values()) or 1.0
    largest = sorted(own.items(), key=lambda item: -item[1])[:most]
    return tuple(Share(key.removeprefix("aten::"), 100 * time / total) for key, time in largest)


def shares_line(name: str, shares: tuple[Share, ...]) -> str:
    """Return one line about where the time of an alternative goes."""
    return f"where the time of {name} goes: {', '.join(f'{share.operator} {share.percent:.0f} %' for share in shares)}"
