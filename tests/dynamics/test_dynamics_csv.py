"""dynamics.csv: what is written is read, files of earlier versions included; and the steps that are probed."""

import math

import pytest

from irformer.dynamics.dynamics_csv import Row, append_rows, read_rows
from irformer.dynamics.figures import read_dynamics
from irformer.dynamics.spacing import Spacing

OLD = "step,layer,name,statistic,value\r\n0,0,layers.0,mean_square,0.5\r\n0,1,layers.1,mean_square,2\r\n"


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [Row(0, 0, "a", "kurtosis", 3.0), Row(100, 1, "b.c", "max_abs", math.inf, "layers.*,x", "training")]
    append_rows(tmp_path / "dynamics.csv", rows[:1])
    append_rows(tmp_path / "dynamics.csv", rows[1:])
    assert read_rows(tmp_path / "dynamics.csv") == rows


def test_curves_are_those_of_one_kind_and_source(tmp_path):
    file = tmp_path / "dynamics.csv"
    kinds = [("groups", "probe"), ("groups", "training"), ("blocks", "probe")]
    append_rows(file, [Row(step, 0, "a", "kurtosis", step + i, *which) for step in (0, 5) for i, which in enumerate(kinds)])
    for i, which in enumerate(kinds):
        (curve,) = read_dynamics(file, *which)["kurtosis"]
        assert (curve.steps.tolist(), curve.values.tolist()) == ([0, 5], [i, 5 + i])
    assert read_dynamics(file)["kurtosis"][0].values.tolist() == [0, 5]


def test_files_of_earlier_versions_are_read_and_continued(tmp_path):
    file = tmp_path / "dynamics.csv"
    file.write_text(OLD, newline="")
    assert read_rows(file)[1] == Row(0, 1, "layers.1", "mean_square", 2.0, "groups", "probe")
    append_rows(file, [Row(100, 0, "layers.0", "mean_square", 0.25), Row(100, 0, "layers.0", "mean_square", 9.0, "groups", "training")])
    first, second = read_dynamics(file)["mean_square"]
    assert (first.steps.tolist(), first.values.tolist()) == ([0, 100], [0.5, 0.25])
    assert (second.steps.tolist(), second.values.tolist()) == ([0], [2])


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (Spacing("linear", 25, 10), [25, 50, 75, 100]),
        (Spacing("log", 1, 1), [1, 10, 100]),
        (Spacing("log", 1, 4), [1, 2, 3, 6, 10, 18, 32, 56, 100]),
    ],
)
def test_steps(spacing, expected):
    assert [step for step in range(1, 101) if spacing.contains(step)] == expected


@pytest.mark.parametrize("per_decade", [1, 3, 10, 64])
def test_logarithmic_steps_are_all_powers_and_nothing_else(per_decade):
    powers = {round(10 ** (k / per_decade)) for k in range(5 * per_decade)}
    spacing = Spacing("log", 100, per_decade)
    assert {step for step in range(1, max(powers) + 1) if spacing.contains(step)} == powers
