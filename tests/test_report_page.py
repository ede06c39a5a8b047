"""What the page of a run, a benchmark or a comparison embeds; tests/browser/test_report.py uses it in a browser."""

import json
import math
import re

import numpy as np
import pytest
from conftest import picture

from irformer.config.compose import compose
from irformer.config.tasks import build_task
from irformer.data.sources import ImagePair
from irformer.data.test_sets import TestSet, evenly_spaced, find_test_set
from irformer.dynamics.dynamics_csv import Row, append_rows
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate_sets
from irformer.evaluation.restorers import BicubicRestorer, NonFiniteOutputError
from irformer.imaging.images import write_image
from irformer.metrics import MetricTraits
from irformer.reporting.charts import Chart, Series, charts
from irformer.reporting.curves import run_charts
from irformer.reporting.forest import Forest, Interval, forests
from irformer.reporting.gallery import chosen_images, gallery, restored_by
from irformer.reporting.page import image_table, write_page
from irformer.reporting.table_html import html_table
from irformer.reporting.tables import Column, Number, Numbers, Part, ResultTable

HOSTILE = "</script><b onclick='x'>&"


def chart_data(plots):
    html = str(charts(plots).html)
    return [json.loads(text) for text in re.findall(r'<script type="application/json" class="chart-data">(.*?)</script>', html)]


def test_a_chart_has_the_recorded_values_and_gaps():
    chart = Chart("Loss", [Series(HOSTILE, [1, 2, 3, 4], [0.123456789, math.nan, math.inf, -2.0]), Series("never", [], [])])
    (data,) = chart_data([chart])
    assert data["series"] == [
        {"name": HOSTILE, "steps": [1, 2, 3, 4], "values": [0.123457, None, None, -2.0], "color": "var(--series-1)", "dash": ""}
    ]
    assert HOSTILE not in str(charts([chart]).html)


def test_many_values_are_thinned_to_recorded_ones_with_all_peaks():
    values = np.random.default_rng(0).normal(size=50_000)
    values[[0, 123, 25_001, 49_999]] = 3, 99, -99, math.nan
    (data,) = chart_data([Chart("Loss", [Series("a", np.arange(50_000) * 10, values)])])
    steps, kept = data["series"][0]["steps"], data["series"][0]["values"]
    assert len(steps) <= 1000
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1], kept[-1]) == (0, 499_990, None)
    assert {1230: 99.0, 250_010: -99.0}.items() <= dict(zip(steps, kept, strict=True)).items()
    np.testing.assert_allclose(kept[:-1], values[np.array(steps[:-1]) // 10], rtol=1e-5)


def test_curves_can_be_told_apart():
    (data,) = chart_data([Chart("Loss", [Series(f"{i}", [0], [i]) for i in range(18)])])
    assert len({(series["color"], series["dash"]) for series in data["series"]}) == 18
    (data,) = chart_data([Chart("Depth", [Series(f"{i}", [0], [i]) for i in range(36)], ordered=True)])
    assert len({series["color"] for series in data["series"]}) == 36


def test_charts_need_values():
    with pytest.raises(UserError, match="charts: found none"):
        charts([])
    with pytest.raises(UserError, match="chart Loss: found no values"):
        charts([Chart("Loss", [Series("a", [], [])])])


def test_numbers_of_a_table_get_columns_of_their_own():
    column = Column("Set5", (Part("psnr_y", True), Part("lpips", False)))
    rows = [
        ["first", Numbers((Number(1 / 3, 2), None)), Number(2.0, 1, deviation=0.5), "better"],
        [HOSTILE, None, None, "-"],
        ["x", Numbers((Number(math.inf, 2), Number(math.nan, 2))), Number(-1.0), "worse"],
        ["failed", "NaN in 2 of 5", None, ""],
    ]
    html = str(html_table(ResultTable("T", ["", column, Column("mean", (Part("", True),)), "verdict"], rows), {"x": "#image=x"}).html)
    assert re.findall(r'data-sort="(\d)" data-first="(\w+)" data-full="([^"]*)"', html) == [
        ("0", "ascending", "name"),
        ("3", "descending", "mean"),
        ("4", "ascending", "verdict"),
        ("1", "descending", "Set5 psnr_y"),
        ("2", "ascending", "Set5 lpips"),
    ]
    body = html.partition("<tbody>")[2]
    assert body.count("<tr>") == 4
    cells = [re.findall(r'data-value="([^"]*)"', row) for row in body.split("</tr>")[:4]]
    assert cells == [["0.3333333333333333", "", "2.0"], ["", "", ""], ["Infinity", "", "-1.0"], ["", ""]]
    assert "2.0 ± 0.50" in body
    assert '<a href="#image=x">x</a>' in body
    assert HOSTILE not in html
    assert re.findall("<strong>(.*?)</strong>", body) == ["2.0 ± 0.50", "inf"]


def test_a_forest_plot_places_differences_on_one_axis_with_0():
    intervals = [
        Interval("b - a", Number(2.0, 1, True), Number(1.0, 1, True), Number(3.0, 1, True), better=True, note="b is better"),
        Interval("c - a", Number(-1.0, 1, True), better=None),
        Interval(HOSTILE, Number(math.inf), better=False),
    ]
    html = str(forests([Forest("PSNR", intervals)]).html)
    (zero,) = {float(value) for value in re.findall(r'forest-zero" style="left: ([\d.]+)%', html)}
    means = [float(value) for value in re.findall(r'forest-mean" style="left: ([\d.]+)%', html)]
    assert 0 < means[-1] < zero < means[0] < 100
    ((left, width),) = re.findall(r'forest-interval" style="left: ([\d.]+)%; width: ([\d.]+)%', html)
    assert float(left) + float(width) / 2 == pytest.approx(means[0], abs=0.01)
    assert "+2.0 [+1.0, +3.0]" in html
    assert re.findall(r'<li class="(\w+)"', html) == ["better", "noise", "worse"]
    assert HOSTILE not in html
    with pytest.raises(UserError, match="PSNR: found no finite difference"):
        forests([Forest("PSNR", intervals[2:])])
    with pytest.raises(UserError, match="found none"):
        forests([])


def run_folder(folder, factor: float, groups: int = 2):
    folder.mkdir()
    lines = ["step,name,value"]
    for step in (9, 19):
        lines += [
            f"{step},train/loss,{factor * step}",
            f"{step},train/loss_l1,{factor}",
            f"{step},train/grad_norm,1.5",
            f"{step},lr-Adam,1e-4",
        ]
    (folder / "metrics.csv").write_text("\n".join([*lines, f"19,val/psnr_y,{30 * factor}", "19,val/ssim_y,nan", ""]))
    rows = [
        Row(step, i, f"layers.{i}", name, factor + i, "groups")
        for step in (0, 20)
        for i in range(groups)
        for name in ("mean_square", "channel_entropy")
    ]
    append_rows(folder / "dynamics.csv", rows)
    return folder


def test_charts_of_one_run_show_its_terms_and_layers(tmp_path):
    found = {
        chart.title: chart for chart in run_charts({"run": run_folder(tmp_path / "a", 1.0)}, [48], {"psnr_y": MetricTraits(unit="dB")})
    }
    assert list(found) == [
        "Training loss",
        "Validation psnr_y",
        "Validation ssim_y",
        "Gradient norm",
        "Feature magnitude",
        "Channel entropy",
    ]
    loss = found["Training loss"]
    assert [(series.name, list(series.steps), list(series.values)) for series in loss.series] == [
        ("loss", [10, 20], [9.0, 19.0]),  # completed steps
        ("loss_l1", [10, 20], [1.0, 1.0]),
    ]
    assert found["Validation psnr_y"].unit == "dB"
    assert [series.name for series in found["Feature magnitude"].series] == ["group 1", "group 2"]
    assert found["Channel entropy"].references == {"ln 48: all channels alike": math.log(48)}


def test_charts_of_several_runs_compare_them(tmp_path):
    (tmp_path / "empty").mkdir()
    folders = {"a": run_folder(tmp_path / "a", 1.0), "b": run_folder(tmp_path / "b", 2.0, groups=3), "empty": tmp_path / "empty"}
    found = {chart.title: chart for chart in run_charts(folders)}
    assert [(series.name, list(series.values)) for series in found["Training loss"].series] == [("a", [9.0, 19.0]), ("b", [18.0, 38.0])]
    assert [(series.name, list(series.values)) for series in found["Feature magnitude"].series] == [("a", [2.0, 2.0]), ("b", [4.0, 4.0])]
    assert run_charts({"empty": tmp_path / "empty"}) == []


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [([5, 14], 100, [5, 14]), ([5, 100, 100], 12, [4, 4, 4]), ([2, 100, 100], 7, [2, 3, 2]), ([5, 5], 1, [1, 0]), ([3], 0, [0])],
)
def test_sets_take_turns_and_their_images_are_evenly_spaced(sizes, most, expected):
    sets = [range(size) for size in sizes]
    chosen = chosen_images(sets, most)
    assert [sum(part is whole for part, _ in chosen) for whole in sets] == expected
    for whole, count in zip(sets, expected, strict=True):
        if count:
            assert [index for part, index in chosen if part is whole] == evenly_spaced(count, len(whole))


class Broken(BicubicRestorer):
    """Fails on the second call."""

    calls = 0

    def __call__(self, lq):
        self.calls += 1
        if self.calls == 2:
            raise NonFiniteOutputError("NaN")
        return super().__call__(lq)


@pytest.fixture
def test_set(tmp_path):
    task = build_task(compose("train", ["task=sr_x2", "name=x"]).task)
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    for i, path in enumerate(paths):
        write_image(path, picture(40, 48, seed=i))
    return TestSet("Tiny", [ImagePair(path.stem, path) for path in paths], task)


def test_a_gallery_shows_input_outputs_and_truth_with_their_metrics(test_set):
    ours = Broken(2)
    results = {"bicubic": evaluate_sets(BicubicRestorer(2), [test_set])}
    images = gallery([test_set], {"ours": restored_by(ours)}, results, most=2)
    assert [image.name for image in images] == ["Tiny/a", "Tiny/c"]
    assert [version.name for version in images[0].versions] == ["bicubic", "ours", "truth"]
    assert [version.name for version in images[1].versions] == ["bicubic", "truth"]  # NaN is not shown as an image
    for image, index in zip(images, (0, 2), strict=True):
        pair = test_set[index]
        np.testing.assert_array_equal(image.versions[0].pixels, BicubicRestorer(2)(pair.lq))
        np.testing.assert_array_equal(image.versions[-1].pixels, pair.hq)
        metrics = {name: number.value for name, number in image.versions[0].metrics.items()}
        assert metrics == results["bicubic"][0].per_image[pair.name]
        assert image.reference == "truth"
    assert images[0].versions[1].metrics == {}


def test_the_table_of_images_links_to_the_viewer(tmp_path, test_set):
    results = {"bicubic": evaluate_sets(BicubicRestorer(2), [test_set])}
    images = gallery([test_set], {}, results, most=2)
    table = image_table(test_set.task, results)
    write_page(tmp_path / "page.html", "Run", {}, [], images=images, details=[table])
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'<a href="(#image[^"]*)">([^<]*)</a>', page) == [("#image=Tiny%2Fa", "Tiny/a"), ("#image=Tiny%2Fc", "Tiny/c")]
    assert [row[0] for row in table.texts] == ["Tiny/a", "Tiny/b", "Tiny/c"]
    assert "<strong>" not in page  # the best number of a column would be that of the easiest image


@pytest.mark.slow
def test_a_page_of_set5_and_set14_with_three_checkpoints_stays_below_12_mb(tmp_path, data_root):
    """With outputs that compress no better than those of networks: the truth with noise."""
    task = build_task(compose("train", ["task=sr_x4", "name=x"]).task)
    sets = [find_test_set(name, data_root, task) for name in ("Set5", "Set14")]

    def noisy(seed):
        rng = np.random.default_rng(seed)
        return lambda _set, pair: np.clip(pair.hq + rng.integers(-3, 4, pair.hq.shape), 0, 255).astype(np.uint8)

    images = gallery(sets, {f"checkpoint {i}": noisy(i) for i in range(3)}, {}, most=24)
    assert len(images) == 19
    write_page(tmp_path / "page.html", "Benchmark", {}, [], images=images)
    assert 6_000_000 < (tmp_path / "page.html").stat().st_size < 12_000_000
