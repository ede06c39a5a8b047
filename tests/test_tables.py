"""Tables of results: the same cells on the terminal, in Markdown and in LaTeX, and CSV at full precision."""

import csv
import io
import math

import pytest
from rich.console import Console

from irformer.reporting.tables import Column, Number, Numbers, Part, ResultTable, best_numbers, csv_text, latex, markdown, terminal

PSNR_SSIM = (Part("psnr_y", True), Part("ssim_y", True))


def psnr_ssim(psnr: float | None, ssim: float | None = None, deviation: float | None = None) -> Numbers:
    return Numbers(
        (None if psnr is None else Number(psnr, 2, deviation=deviation), None if ssim is None else Number(ssim, 4)),
    )


TABLE = ResultTable(
    "sr_x2: psnr_y / ssim_y",
    ["", Column("Set5", PSNR_SSIM), "step"],
    [
        ["ours", psnr_ssim(38.123456789, 0.96147, deviation=0.0123), Number(500)],
        ["theirs, 50 %_a", psnr_ssim(38.119, None), None],
        ["an_other", psnr_ssim(None, 0.96149), "-"],
        ["none", psnr_ssim(None), Number(7)],
    ],
    ["* 100 % of it."],
)


def test_cells_print_their_decimals_and_what_is_missing():
    assert TABLE.names == ["", "Set5", "step"]
    assert TABLE.texts == [
        ["ours", "38.12 ± 0.012 / 0.9615", "500"],
        ["theirs, 50 %_a", "38.12", "-"],
        ["an_other", "0.9615", "-"],
        ["none", "-", "7"],
    ]
    interval = Numbers((Number(-0.0512, 3, sign=True), Number(0.25, 3, sign=True)), ", ", ("[", "]"))
    assert ResultTable("", ["interval"], [[interval], [Number(math.inf, 2)]]).texts == [["[-0.051, +0.250]"], ["inf"]]


def test_terminal_and_markdown_have_the_same_cells():
    printed = io.StringIO()
    terminal(TABLE, Console(file=printed, width=100))
    rows = [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in printed.getvalue().splitlines()]
    assert [row for row in rows if len(row) == 3] == [TABLE.names, *TABLE.texts]
    lines = markdown(TABLE).splitlines()
    assert lines[:3] == ["|  | Set5 | step |", "| --- | --- | --- |", "| ours | 38.12 ± 0.012 / 0.9615 | 500 |"]
    assert lines[-1] == "* 100 % of it."


def test_csv_has_one_column_for_each_number_at_full_precision():
    rows = list(csv.reader(io.StringIO(csv_text(TABLE))))
    assert rows == [
        ["", "Set5 psnr_y", "Set5 psnr_y deviation", "Set5 ssim_y", "step"],
        ["ours", "38.123456789", "0.0123", "0.96147", "500"],
        ["theirs, 50 %_a", "38.119", "", "", ""],
        ["an_other", "", "", "0.96149", "-"],
        ["none", "", "", "", "7"],
    ]
    third = 1 / 3
    assert float(csv_text(ResultTable("", ["x"], [[Number(third, 2)]])).splitlines()[1]) == third
    assert csv_text(ResultTable("", ["x"], [[Numbers((Number(1, 0), Number(-math.inf, 2)))]])) == "x 1,x 2\n1,-inf\n"


def test_latex_escapes_text_and_marks_the_best():
    assert latex(TABLE).splitlines() == [
        "% sr_x2: psnr_y / ssim_y",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & Set5 & step \\",
        r"\midrule",
        r"ours & \textbf{38.12 $\pm$ 0.012} / \textbf{0.9615} & 500 \\",
        r"theirs, 50 \%\_a & \textbf{38.12} & -- \\",
        r"an\_other & \textbf{0.9615} & -- \\",
        r"none & -- & 7 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% * 100 % of it.",
    ]
    odd = ResultTable("a\nb", ["x\ny"], [[r"\a{b} & ~^$#<|>"], [Number(-1.5, 1)], [Number(math.inf, 2)]])
    assert latex(odd).splitlines()[4:] == [
        r"\midrule",
        r"\textbackslash{}a\{b\} \& \textasciitilde{}\textasciicircum{}\$\#\textless{}\textbar{}\textgreater{} \\",
        r"$-$1.5 \\",
        r"$\infty$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert r"{}[1] \\" in latex(ResultTable("", ["x"], [["[1]"]])), "not an optional argument of the line above"
    assert latex(odd).splitlines()[:2] == ["% a b", r"\begin{tabular}{l}"]
    assert r"x y \\" in latex(odd)


@pytest.mark.parametrize(("higher_is_better", "best"), [(True, {(2, 1, 0)}), (False, {(0, 1, 0), (3, 1, 0)}), (None, set())])
def test_the_best_number_follows_the_direction(higher_is_better, best):
    """0.501 and 0.499 are equal when rounded to two decimals, and NaN is never the best."""
    column = Column("Set5", (Part("x", higher_is_better),))
    values = [0.499, math.nan, 3.0, 0.501]
    table = ResultTable("", ["", column], [[str(i), Number(value, 2)] for i, value in enumerate(values)])
    assert best_numbers(table) == best
    assert best_numbers(ResultTable("", ["", column], table.rows[:2])) == set(), "one number is not better than any other"
