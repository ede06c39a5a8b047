"""The comparison behind Figure 1: what its closing remarks say follows from the numbers."""

import json

from rich.console import Console

from irformer.experiments.figure1 import figure1_remarks, reproduce_figure1


def test_remarks_blame_the_ends_when_the_control_stays_with_iln():
    first, second = figure1_remarks({"ln": 288.0, "control": 0.0977, "iln": 0.0805})
    assert "a ratio of 3,578" in first
    assert "1.21 times i-LN" in second
    assert "from LayerNorm at the network's ends and its input, not from the norm inside the blocks" in second


def test_remarks_blame_the_blocks_when_the_control_goes_with_ln():
    assert figure1_remarks({"ln": 300.0, "control": 280.0, "iln": 0.1})[1].endswith("the divergence comes from the norm inside the blocks.")


def test_remarks_share_the_blame_in_between():
    assert "both the norm inside the blocks and the network's ends" in figure1_remarks({"ln": 100.0, "control": 1.0, "iln": 0.01})[1]


def test_remarks_explain_nothing_where_nothing_diverged():
    assert figure1_remarks({"ln": 0.5, "control": 0.2, "iln": 0.1})[1].startswith("At this budget LayerNorm has not diverged")


def test_the_comparison_leaves_figure_page_and_numbers(tmp_path):
    small = ["trainer.max_steps=4", "callbacks.probe.every=2", "batch_size=1", "patch_size=16", "logger=csv", "trainer=cpu"]
    reproduce_figure1("cpu", tmp_path, small, Console(quiet=True))
    assert (tmp_path / "figure1.png").stat().st_size > 10_000
    arms = json.loads((tmp_path / "results.json").read_text())["arms"]
    assert list(arms) == ["ln", "control", "iln"]
    header, *rows = (tmp_path / "dynamics.csv").read_text().splitlines()
    assert header == "arm,step,layer,name,statistic,value"
    assert len(rows) == 3 * 3 * 4 * 3  # arms, probes (0, 2, 4), groups, statistics
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 1 + 2 * 5  # the figure; two photos: bicubic, three arms and the truth
    for arm in arms.values():
        assert arm["metrics"]["psnr_y"] > 10
