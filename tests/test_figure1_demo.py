"""The closing remarks on Figure 1 follow from the numbers."""

from irformer.experiments.figure1_demo import figure1_remarks


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
