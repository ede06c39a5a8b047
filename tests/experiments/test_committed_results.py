"""The committed pages of the claims follow from the committed records, which belong to the experiments as they are described now."""

import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from irformer.experiments import result_pages
from irformer.experiments.budgets import BUDGETS
from irformer.experiments.laboratory import EXPERIMENTS, RESULTS_FOLDER, Order, all_states, conduct

RESULTS = Path(__file__).parents[2] / RESULTS_FOLDER
PAGES = [name for name in EXPERIMENTS if (RESULTS / f"{name}.md").is_file()]


def finished(out: Path, budget: str) -> list[str]:
    """Names of the claims whose runs all have a record."""
    return [name for name, states in all_states(out).items() if states[budget].finding is not None]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    """All pages, written again from the committed records, without their figures."""
    out = tmp_path_factory.mktemp("results")
    shutil.copytree(RESULTS / "data", out / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_pages, "save_figure", lambda figure, path: None)
        for budget in BUDGETS.values():
            if names := finished(out, budget.name):  # the others would be trained
                conduct(Order(names, budget, out=out), Console(quiet=True))
    return out


def test_every_finished_claim_has_its_page():
    assert {name for budget in BUDGETS for name in finished(RESULTS, budget)} == set(PAGES)


@pytest.mark.parametrize("name", ["README.md", *(f"{name}{suffix}" for name in PAGES for suffix in (".md", ".csv"))])
def test_a_page_is_what_the_records_say(rebuilt, name):
    assert (RESULTS / name).read_text() == (rebuilt / name).read_text(), "run scripts/reproduce.py NAME budget=BUDGET"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_figures_that_are_there(name):
    page = (RESULTS / f"{name}.md").read_text()
    shown = [part.partition(")")[0] for part in page.split("](")[1:]]
    assert shown
    assert not [file for file in shown if not (RESULTS / file).is_file()]


@pytest.mark.parametrize("file", ["README.md", "docs/results.md"])
def test_prose_quotes_the_control_as_it_stands_on_its_page(file):
    """The prose names the factors of both norms, as the page prints them."""
    text, page = ((RESULTS.parents[1] / name).read_text() for name in (file, "docs/results/control.md"))
    factors = re.findall(r"explains a factor of (\S+) ", page)
    assert len(factors) == 2
    assert all(re.search(rf"\bby {re.escape(factor)}[\s,.]", text) for factor in factors)


def test_the_results_quote_shares_and_steps_of_the_control():
    text, page = ((RESULTS.parents[1] / name).read_text() for name in ("docs/results.md", "docs/results/control.md"))
    (share,) = re.findall(r"(\d+) % belong to the final norm", page)
    steps = re.findall(r"at step ([\d,]+) \(median\)", page)
    assert f"This is {share} % of the sum of both" in text
    assert f"by step {steps[0]} (median" in text
    assert f"by step {steps[1]} at twice the learning rate" in text


def test_prose_quotes_figure7_as_it_stands_on_its_page():
    text, page = ((RESULTS.parents[1] / name).read_text() for name in ("docs/results.md", "docs/results/figure7.md"))
    (line,) = [line for line in page.splitlines() if line.startswith("- Removing the rescaling")]
    factors = re.findall(r"by ([\d.]+) \(", line)
    assert len(factors) == 2
    assert all(f" {factor} times" in text for factor in factors)


def test_prose_quotes_the_pairs_of_networks_as_they_stand_on_their_pages():
    text, figure2, table2, table4 = (
        " ".join((RESULTS.parents[1] / name).read_text().split())
        for name in ("docs/results.md", "docs/results/figure2.md", "docs/results/table2.md", "docs/results/table4.md")
    )
    (span, without) = re.findall(r"i-LN by (\S+ to \S+) in log10\. Without .* \(restormer_tiny\), it differs by (\S+)\. ", figure2)[0]
    assert f"LayerNorm's magnitude differs from that of i-LN by {span} in log10" in text
    assert f"it differs by {without}. This is what the control predicts." in text
    gains = dict(re.findall(r"\| (\w[^|]*): i-LN restores better than LayerNorm \| \+([\d.]+) ", table2))
    restormer = gains.pop("restormer_tiny")
    assert len(gains) == 5
    assert f"i-LN restores better by {min(gains.values())} to {max(gains.values())} dB with SwinIR, HAT and DRCT" in text
    assert f"With Restormer the difference is +{restormer} dB" in text
    count, half, full = re.findall(
        r"(\d of \d) trained networks fail in float16, .*? restore with ([\d.]+) and \2 dB in float16, and with (.*?) dB", table4
    )[0]
    assert f"{count} trained LayerNorm networks fail in float16: they restore Set5 with {half} dB instead of {full} dB" in text
