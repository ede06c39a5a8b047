"""Targets for measured numbers, and verdicts by one rule: the median, or the ratio of medians, reaches the target or does not."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from irformer.speed.measure import Spread


@dataclass(frozen=True)
class Target:
    """The bound that a number should reach.

    Args:
        bound: the bound.
        at_least: whether the number should be at least the bound, otherwise at most.
    """

    bound: float
    at_least: bool

    def holds(self, found: float) -> bool:
        """Return whether a number reaches the bound."""
        return found >= self.bound if self.at_least else found <= self.bound

    def text(self, unit: str = "") -> str:
        """Return the target in words."""
        return f"{self.bound:.2f}{unit} or {'more' if self.at_least else 'less'}"


@dataclass(frozen=True)
class Finding:
    """A measured number with its target.

    Args:
        name: what is measured, such as the ratio `official / ln`.
        work: the work, such as `restore swinir_light x2, 256x256`.
        found: the number with its spread.
        target: its target, or None.
        unit: unit of the number, empty for a ratio.
    """

    name: str
    work: str
    found: Spread
    target: Target | None
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the number reaches its target; None without a target."""
        return None if self.target is None else self.target.holds(self.found.median)

    @property
    def line(self) -> str:
        """The verdict in one line; empty without a target."""
        if self.target is None:
            return ""
        verdict = "reached" if self.reached else "NOT REACHED"
        unit = f" {self.unit}" if self.unit else ""
        spread = f" ({self.found.low:.2f} to {self.found.high:.2f})" if self.found.low < self.found.high else ""
        name = f"{self.name} " if self.name else ""
        return f"{self.work}: {name}{self.found.median:.2f}{unit}{spread}, target {self.target.text(unit)}: {verdict}"


# (work, name of the ratio, target), the first two as regular expressions; the first row that matches applies.
_Rows = tuple[tuple[str, str, Target], ...]
_CPU: _Rows = (
    ("(restore|train) .*", "iln.* / ln.*", Target(1.0, at_least=False)),
    ("restore swinir_light x2, 256x256", "official / ln", Target(3.5, at_least=True)),
    ("restore hat_mini x2, 64x64", "official / ln", Target(4.0, at_least=True)),
    ("restore restormer, 128x128", "official / ln", Target(1.5, at_least=True)),
    ("train swinir_light .*", "official / ln", Target(1.4, at_least=True)),
    ("train hat_mini .*", "official / ln", Target(1.5, at_least=True)),
    ("train (swinir_light|hat_mini) .*", "official / best of irformer", Target(1.6, at_least=True)),
    ("memory .* 512x512", "ln / official", Target(0.5, at_least=False)),
    ("loop .*", "loop / bare step", Target(0.97, at_least=True)),
)
_GPU: _Rows = (
    ("(restore|train) .*", "iln bf16.* / ln bf16.*", Target(1.02, at_least=False)),
    ("restore .*", "official / best of irformer", Target(2.5, at_least=True)),
    ("train (swinir_light|hat_mini) .*", "official bf16 / ln bf16", Target(1.5, at_least=True)),
    ("train (swinir_light|hat_mini) .*", "official / best of irformer", Target(3.0, at_least=True)),
    ("memory .* 512x512", "ln / official", Target(0.4, at_least=False)),
    ("loop .*", "loop / bare step", Target(0.97, at_least=True)),
)


def find_target(work: str, name: str, device: str) -> Target | None:
    """Return the target of a ratio, or None.

    Args:
        work: the work in words, such as `restore swinir_light x2, 256x256`.
        name: name of the ratio.
        device: type of the device.
    """
    for works, names, target in _CPU if device == "cpu" else _GPU:
        if re.fullmatch(works, work) and re.fullmatch(names, name):
            return target
    return None


def verdicts(findings: Iterable[Finding]) -> list[str]:
    """Return the verdicts of all numbers that have a target."""
    return [finding.line for finding in findings if finding.line]
