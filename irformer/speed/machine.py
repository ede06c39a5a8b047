"""The machine, the versions and the command of a measurement, which every output names."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from irformer.training.provenance import cpu_name, start_entry

_PEERS = ("spandrel", "spandrel_extra_arches")


@dataclass(frozen=True)
class Machine:
    """Where and how something was measured.

    Args:
        command: the command line.
        date: local time with UTC offset.
        device: type of the device, such as `cpu`.
        device_name: name of the processor or GPU.
        cores: processor cores that this process may use.
        threads: threads of PyTorch's operators.
        system: operating system.
        python: version of Python.
        irformer: version of irformer.
        code: git commit and whether files differ from it; None outside a checkout.
        packages: versions of packages; None for those that are not installed.
    """

    command: str
    date: str
    device: str
    device_name: str
    cores: int
    threads: int
    system: str
    python: str
    irformer: str
    code: dict[str, str | bool] | None
    packages: dict[str, str | None]

    @property
    def line(self) -> str:
        """The machine in one sentence."""
        versions = [f"{name} {self.packages[name]}" for name in ("torch", *_PEERS) if self.packages.get(name)]
        commit = f" ({str(self.code['commit'])[:7]}{', changed' if self.code['dirty'] else ''})" if self.code else ""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return (
            f"Measured {self.date[:10]} on {self.device_name}, {threads} on {cores}, {self.system}, "
            f"Python {self.python}, {', '.join(versions)}, irformer {self.irformer}{commit}."
        )


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine and this process."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    start = start_entry(["python", *sys.argv], 0, [name])
    return Machine(
        command=start["command"],
        date=start["started"],
        device=device.type,
        device_name=name,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=platform.system(),
        python=start["python"],
        irformer=start["irformer"],
        code=start["code"],
        packages=start["packages"] | {package: _version(package) for package in _PEERS},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
