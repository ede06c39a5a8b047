"""A pytest plugin that counts attempts to break irformer and writes their outcomes into docs/reliability.md.

A test that tries hostile or careless input takes the fixture `attempts` and counts each try by its outcome:

    attempts.refused("weights files")   # one line that names the file or key; nothing was built, written or lost
    attempts.handled("image files")     # the right result

Anything else (a traceback, a silent wrong result, a hang) fails the test. `pytest --reliability docs/reliability.md` runs only the tests
that count attempts, and replaces the table between the page's two markers.
"""

import os
import platform
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

START, END = "<!-- attempts -->", "<!-- end of attempts -->"
_PROPERTY = "irformer_attempts"


class Attempts:
    """Counts attempts by area and outcome."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def refused(self, area: str) -> None:
        """The input was refused in one line."""
        self.counts[area, "refused"] += 1

    def handled(self, area: str) -> None:
        """The input gave the right result."""
        self.counts[area, "handled"] += 1


@pytest.fixture
def attempts(request):
    counter = Attempts()
    yield counter
    counts = [[area, outcome, count] for (area, outcome), count in counter.counts.items()]
    request.node.user_properties.append((_PROPERTY, counts))


def pytest_addoption(parser):
    parser.addoption("--reliability", type=Path, metavar="PAGE", help="run the tests that count attempts, and write their table into PAGE")


def pytest_configure(config):
    # Only the process that sees all results writes the page.
    if config.getoption("--reliability") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(config.getoption("--reliability")))


def pytest_collection_modifyitems(config, items):
    if config.getoption("--reliability"):
        kept = [item for item in items if "attempts" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


class Table:
    """Collects the counts of all tests and writes the table when the session ends."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.counts: dict[str, Counter[str]] = {}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "teardown":
            for name, counts in report.user_properties:
                if name == _PROPERTY:
                    for area, outcome, count in counts:
                        self.counts.setdefault(area, Counter())[outcome] += count

    def pytest_sessionfinish(self, session):
        before, rest = self.page.read_text(encoding="utf-8").split(START)
        after = rest.split(END)[1]
        self.page.write_text(f"{before}{START}\n\n{self.markdown()}\n\n{END}{after}", encoding="utf-8")

    def markdown(self) -> str:
        lines = ["| input | attempts | refused in one line | right result |", "| --- | ---: | ---: | ---: |"]
        for area, outcomes in sorted(self.counts.items()):
            lines.append(f"| {area} | {outcomes.total():,} | {outcomes['refused']:,} | {outcomes['handled']:,} |")
        total = sum(self.counts.values(), Counter())
        lines.append(f"| **all** | **{total.total():,}** | **{total['refused']:,}** | **{total['handled']:,}** |")
        outcome = "No attempt failed." if not self.failed else f"Failed tests: {', '.join(self.failed)}."
        names = ("torch", "lightning", "hydra-core", "omegaconf", "opencv-python", "pillow")
        packages = ", ".join(f"{name} {version(name)}" for name in names)
        machine = f"Python {platform.python_version()}, {packages}; {os.cpu_count()} CPU cores; {date.today().isoformat()}."
        return "\n".join([*lines, "", f"{outcome} {machine}"])
