"""The rule of all verdicts: conditions on intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from irformer.experiments.seed_statistics import Estimate

Outcome = Literal["holds", "contradicted", "undecided"]
Verdict = Literal["agrees", "disagrees", "not visible at this budget"]

RULE = (
    "A verdict follows from conditions, which stand on the page of the claim. A condition compares a 95 % interval with two bounds: it "
    "holds if the whole interval lies above the first, and is contradicted if the whole interval lies below the second. The result agrees "
    "with the paper if all conditions hold, disagrees if one is contradicted, and is not visible at this budget otherwise."
)


@dataclass(frozen=True)
class Check:
    """A condition of a verdict.

    Args:
        statement: what the paper implies, as a sentence about the measured number.
        estimate: the measured number with its interval.
        holds: the bound that the whole interval must exceed.
        contradicted: the bound that the whole interval must stay below for the condition to be contradicted.
        unit: unit of the number, in words.
        digits: decimals to print.
    """

    statement: str
    estimate: Estimate
    holds: float
    contradicted: float
    unit: str
    digits: int = 2

    @property
    def outcome(self) -> Outcome:
        """Whether the condition holds."""
        if self.estimate.low > self.holds:
            return "holds"
        return "contradicted" if self.estimate.high < self.contradicted else "undecided"

    @property
    def bounds(self) -> str:
        """Both bounds in words."""
        return f"holds above {self.holds:g}, contradicted below {self.contradicted:g}"

    @property
    def measured(self) -> str:
        """The number with its interval and unit."""
        return f"{self.estimate.text(self.digits, sign=True)} {self.unit}".strip()


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Return the verdict of the rule."""
    outcomes = {check.outcome for check in checks}
    if "contradicted" in outcomes:
        return "disagrees"
    return "agrees" if outcomes == {"holds"} else "not visible at this budget"


def reason_of(checks: Sequence[Check]) -> str:
    """Return one sentence with the numbers that decide the verdict."""
    verdict = verdict_of(checks)
    deciding = {"agrees": "holds", "disagrees": "contradicted"}.get(verdict, "undecided")
    shown = [f"{check.statement}: {check.measured}" for check in checks if check.outcome == deciding]
    words = {"holds": "all conditions hold", "contradicted": "contradicted", "undecided": "undecided"}[deciding]
    return f"{words}: {'; '.join(shown)}."
