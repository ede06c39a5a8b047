"""What an experiment of the laboratory consists of: arms, measured quantities, and a rule that turns numbers into a verdict."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from irformer.experiments.budgets import Budget
from irformer.experiments.checks import Check
from irformer.experiments.lab_arms import Arm
from irformer.experiments.measured import Measured, Quantity
from irformer.reporting.tables import ResultTable


@dataclass(frozen=True)
class Experiment:
    """A claim of the paper, and how the laboratory measures it. Pages and verdicts follow from it and from the records of the arms.

    Args:
        name: the word after reproduce.py.
        reference: the figure or table of arXiv 2504.06629, or what the experiment is.
        title: the heading of the page.
        claim: what the paper claims, with its numbers.
        in_short: the claim in a few words, for lists.
        arms: the arms at a budget; none if the budget cannot show the claim.
        quantities: what the table of arms shows.
        checks: the conditions of the verdict, computed from the arms.
        would_change: what could change the verdict.
        figure: the figure of the page.
        setting: what the arms share and how they differ from the paper's, in words.
        remarks: further sentences computed from the arms.
        tables: further tables.
        surfaces: whether a page with the surfaces of the dynamics over depth and steps, to turn, accompanies the figure.
        analyses: what its pages need from the weights of its arms, see `irformer.experiments.analyses`.
    """

    name: str
    reference: str
    title: str
    claim: str
    in_short: str
    arms: Callable[[Budget], Iterable[Arm]]
    quantities: Sequence[Quantity]
    checks: Callable[[Measured], Sequence[Check]]
    would_change: str
    figure: Callable[[Measured], Figure]
    setting: str = ""
    remarks: Callable[[Measured], Sequence[str]] = lambda measured: ()
    tables: Callable[[Measured], Sequence[ResultTable]] = lambda measured: ()
    surfaces: bool = False
    analyses: Sequence[str] = ()
