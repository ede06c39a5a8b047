"""Which classes a file may name: the only place that turns a name read from a file into a class.

Weights files and run folders are data. A record or a saved configuration names classes by `_target_`. Only classes listed here, or in
packages that the user trusts, are imported or called.
"""

import argparse
import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from irformer.core.folders import ENTRY_POINTS, config_packages
from irformer.errors import UserError

VARIABLE = "IRFORMER_TRUST"

Purpose = Literal["network", "task", "run"]

_NETWORKS = ("irformer.models", "irformer.norms")
_TASKS = ("irformer.tasks",)
# Packages whose classes a file may name, without classes that their modules import from elsewhere.
_PACKAGES: dict[Purpose, tuple[str, ...]] = {
    "network": _NETWORKS,
    "task": _TASKS,
    "run": (
        *_NETWORKS,
        *_TASKS,
        "irformer.metrics",
        "irformer.training.callbacks",
        "irformer.training.feature_kl",
        "irformer.training.losses",
        "irformer.training.schedules",
        "torch.optim",
    ),
}
# Single classes of large packages. No argument makes them import code or write outside the run's folder.
_CLASSES: dict[Purpose, frozenset[str]] = {
    "network": frozenset(),
    "task": frozenset(),
    "run": frozenset(
        {"lightning.Trainer", "lightning.pytorch.Trainer"}
        | {f"torch.nn.{name}" for name in ("L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss")}
        | {
            f"lightning.pytorch.callbacks.{name}"
            for name in ("DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "RichProgressBar", "Timer", "TQDMProgressBar")
        }
        | {f"lightning.pytorch.loggers.{name}" for name in ("TensorBoardLogger", "WandbLogger")}
        | {f"lightning.pytorch.strategies.{name}" for name in ("DDPStrategy", "FSDPStrategy", "SingleDeviceStrategy")}
    ),
}
# Arguments that a file may set, for classes with other arguments that could start a program.
_ARGUMENTS: dict[str, frozenset[str]] = {
    "lightning.pytorch.loggers.WandbLogger": frozenset(
        {"entity", "group", "job_type", "log_model", "mode", "notes", "offline", "prefix", "project", "tags"}
    ),
}
_MAY_NAME: dict[Purpose, str] = {
    "network": "a file may only name irformer's networks and norms",
    "task": "a file may only name irformer's tasks and degradations",
    "run": "a saved configuration may only name classes that irformer's configurations use",
}
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Trust:
    """The classes that a file may name: irformer's own, and those of packages that the user trusts.

    Args:
        packages: packages whose classes any file may name, submodules included. Packages in the environment variable IRFORMER_TRUST
            (separated by commas) and installed packages with the entry point irformer.configs are added.
        names: full names of single classes that the user specified, for example on the command line.

    Raises:
        UserError: an entry is not a valid package name.
    """

    def __init__(self, packages: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        if isinstance(packages, str) or not all(isinstance(name, str) for name in packages):
            raise UserError(f"trust={packages}: expected a list of packages, for example trust=[mypkg]")
        entries = [("trust", name) for name in packages]
        entries += [(VARIABLE, name.strip()) for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
        for source, name in entries:
            if not _NAME.fullmatch(name):
                raise UserError(f"{source}={shortened(name)}: expected a package name, for example mypkg")
        self.packages = tuple(dict.fromkeys([*(name for _, name in entries), *(found.package for found in config_packages())]))
        self.names = frozenset(names)

    def with_names(self, names: Sequence[str]) -> "Trust":
        """Return a copy that also allows the given classes."""
        return Trust(self.packages, [*self.names, *names])

    def is_builtin(self, target: str, purpose: Purpose) -> bool:
        """Return whether irformer allows the class by default."""
        return target in _CLASSES[purpose] or any(_within(target, package) for package in _PACKAGES[purpose])

    def find(self, target: Any, purpose: Purpose) -> Callable[..., Any]:
        """Import a class named in a file, once its name is known to be allowed.

        Args:
            target: the value of `_target_` in the file.
            purpose: what the file describes: a network, a task, or a whole run.

        Returns:
            The class; for packages that the user trusts, possibly a function.

        Raises:
            UserError: the name is not allowed, or the class does not exist.
        """
        if not isinstance(target, str) or not _NAME.fullmatch(target):
            raise UserError(f"_target_={shortened(target)}: expected the full name of a class, such as irformer.models.SwinIR")
        module, _, name = target.rpartition(".")
        if target in self.names or target in _CLASSES[purpose]:
            return _imported(module, name, target)
        builtin = next((package for package in _PACKAGES[purpose] if _within(module, package)), None)
        package = builtin or next((package for package in self.packages if _within(module, package)), None)
        if package is None:
            raise UserError(self._refusal(target, purpose, target.partition(".")[0]))
        try:
            found = _imported(module, name, target)
        except UserError:
            if builtin is None:
                raise
            raise UserError(self._refusal(target, purpose, None)) from None
        home = str(getattr(found, "__module__", ""))
        if builtin is not None and not (isinstance(found, type) and _within(home, builtin)):
            raise UserError(self._refusal(target, purpose, None))
        if builtin is None and not any(_within(home, trusted) for trusted in self.packages):
            raise UserError(self._refusal(target, purpose, home.partition(".")[0]))
        return found

    def require(self, node: Any, purpose: Purpose) -> None:
        """Check every `_target_` in plain data, at any depth.

        Raises:
            UserError: a class is not allowed; the message names it.
        """
        for target in targets(node):
            self.find(target, purpose)

    def require_arguments(self, target: str, arguments: Sequence[str]) -> None:
        """Check the arguments that a file passes to a class.

        Raises:
            UserError: an argument is not allowed in files; the message names it.
        """
        allowed = _ARGUMENTS.get(target)
        if allowed is None or target in self.names or any(_within(target, package) for package in self.packages):
            return
        unknown = next((name for name in arguments if name not in allowed), None)
        if unknown is not None:
            package = target.partition(".")[0]
            raise UserError(f"passes {shortened(unknown)} to {target}; known: {', '.join(sorted(allowed))}; {how_to_trust(package)}")

    @staticmethod
    def _refusal(target: str, purpose: Purpose, package: str | None) -> str:
        remedy = "" if package is None else f", or classes of packages that you trust: {how_to_trust(package)}"
        return f"names the class {shortened(target)}; {_MAY_NAME[purpose]}{remedy}"


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add `--trust PACKAGE` to a command that reads weights; evaluate it with `Trust(arguments.trust)`."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="another package whose classes the file may name; use only for files from a known source; may be repeated",
    )


def how_to_trust(package: str) -> str:
    """Return the part of a message that explains how to trust a package."""
    name = shortened(package)
    return (
        f"trust=[{name}], --trust {name} or {VARIABLE}={name}, only for a file from a known source; "
        f"installed packages with the entry point {ENTRY_POINTS} are trusted"
    )


def foreign_targets(node: Any) -> list[str]:
    """Return the classes in plain data, at any depth, that are not irformer's own; each once, in order."""
    builtin = Trust().is_builtin
    return list(dict.fromkeys(target for target in targets(node) if isinstance(target, str) and not builtin(target, "run")))


def foreign_packages(node: Any) -> list[str]:
    """Return the packages that must be trusted before a file with this plain data can be used; each once, in order."""
    installed = [found.package for found in config_packages()]
    names = [target for target in foreign_targets(node) if not any(_within(target, package) for package in installed)]
    return list(dict.fromkeys(target.partition(".")[0] for target in names))


def targets(node: Any) -> Iterator[Any]:
    """Yield every value of `_target_` in plain data, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets(value)


def shortened(value: Any, length: int = 80) -> str:
    """Make text from a file fit for a message: one line, printable, short. Containers are shown by their type."""
    if not isinstance(value, str | int | float | bool | None):
        return f"a {type(value).__name__}"
    text = "".join(char if char.isprintable() else "?" for char in (value[: length + 1] if isinstance(value, str) else repr_of(value)))
    return text if len(text) <= length else f"{text[: length - 3]}..."


def repr_of(value: int | float | bool | None) -> str:
    """Convert a number to text; Python refuses to print integers of several thousand digits."""
    return f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) >= 2**64 else str(value)


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _imported(module: str, name: str, target: str) -> Callable[..., Any]:
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise UserError(f"{shortened(target)}: no such class; is its package installed?") from None
    if not callable(found):
        raise UserError(f"{shortened(target)}: expected a class, found a {type(found).__name__}")
    return found
