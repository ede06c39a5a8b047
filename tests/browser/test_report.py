"""The page of a run, a benchmark or a comparison (irformer.reporting.page), in a browser: its tables, its charts, and what links them."""

import re

import numpy as np
import pytest
from conftest import picture

from browser.conftest import Watched, opening
from browser.pages import settle, until
from irformer.reporting.charts import Chart, Series
from irformer.reporting.forest import Forest, Interval
from irformer.reporting.page import write_page
from irformer.reporting.tables import Column, Number, Numbers, Part, ResultTable
from irformer.reporting.viewer import Version, ViewedImage

HOSTILE = "</script><script>throw new Error('escaped')</script>&lt;b>"
METRICS = (Part("psnr_y", True), Part("lpips", False))
# name, PSNR, LPIPS; None is missing. The order by any column differs from the order here.
ROWS = {
    "bicubic": (26.5, 0.31),
    "SwinIR, trained": (28.25, 0.12),
    "SwinIR 10 steps": (9.125, 0.9),
    "HAT": (28.251, None),
    "same": (float("inf"), 0.0),
    "broken": None,
    HOSTILE: (27.0, 0.2),
    "DRCT": (28.0, 0.13),
}
STEPS = np.arange(0, 1001, 100)
LOSS = Series("run a", STEPS, 0.2 * 0.997**STEPS)
OTHER = Series(HOSTILE, STEPS[::2] + 50, np.where(STEPS[::2] == 400, np.nan, 0.1 * 0.998 ** STEPS[::2]))
LONG = Series("long", np.arange(1, 20_001), np.sin(np.arange(20_000) / 700) + (np.arange(20_000) == 12_345) * 5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    rows = [
        [name, None if values is None else Numbers(tuple(None if v is None else Number(v, 2) for v in values))]
        for name, values in ROWS.items()
    ]
    table = ResultTable("Results", ["", Column("Set5", METRICS)], rows, ["A note."])
    images = []
    for name, seed in (("Set/one", 1), ("Set/two & <last>", 2)):
        truth = picture(48, 64, seed=seed)
        images.append(ViewedImage(name, (Version("ours", truth ^ 1), Version("truth", truth)), "truth"))
    details = ResultTable("Every image", ["image", "psnr"], [[image.name, Number(30.0 + i, 2)] for i, image in enumerate(images)])
    charts = [
        Chart("Training loss", [LOSS, OTHER], logarithmic=True),
        Chart("Long", [LONG], unit="dB"),
        Chart(
            "Layers", [Series(f"group {i}", [0, 500, 1000], [i, 2 * i, 3 * i]) for i in range(1, 9)], ordered=True, references={"ln 3": 1.1}
        ),
    ]
    write_page(path, "Run", {"task": "sr_x2"}, [table], images=images, plots=charts, details=[details])
    return path


@pytest.fixture(scope="module")
def shared(browser, path):
    watched = Watched()
    with opening(browser, watched) as opened:
        page = opened(path)
        page.locator(".viewer-versions button").first.wait_for()
        yield page, watched


@pytest.fixture
def page(shared):
    page, watched = shared
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    yield page
    assert watched.problems == []


def names(page) -> list[str]:
    return [row.locator("th").inner_text() for row in page.locator(".table").first.locator("tbody tr:visible").all()]


def test_headers_sort_by_the_full_value_the_best_first_and_then_restore_the_order(page):
    table, original = page.locator(".table").first, list(ROWS)
    expected = {
        "Set5 psnr_y": ["same", "HAT", "SwinIR, trained", "DRCT", HOSTILE, "bicubic", "SwinIR 10 steps", "broken"],
        "Set5 lpips": ["same", "SwinIR, trained", "DRCT", HOSTILE, "bicubic", "SwinIR 10 steps", "HAT", "broken"],
    }
    missing = {"Set5 psnr_y": 1, "Set5 lpips": 2}
    for name, order in expected.items():
        button = table.get_by_role("button", name=f"Sort by {name}")
        first, second = ("descending", "ascending") if name == "Set5 psnr_y" else ("ascending", "descending")
        button.click()
        assert names(page) == order
        assert table.locator("[aria-sort]").count() == 1
        assert table.locator(f"[aria-sort={first}]").inner_text() == name.split()[1]
        assert table.get_by_role("status").inner_text() == f"Sorted by {name}, {first}."
        button.press("Enter")  # by keyboard; missing values stay last
        known = len(order) - missing[name]
        assert names(page) == [*reversed(order[:known]), *order[known:]]
        assert table.locator(f"[aria-sort={second}]").count() == 1
        button.press("Space")
        assert names(page) == original
        assert table.locator("[aria-sort]").count() == 0
    table.get_by_role("button", name="Sort by name").click()
    assert names(page)[1:4] == ["bicubic", "broken", "DRCT"]
    table.get_by_role("button", name="Sort by name").click()
    table.get_by_role("button", name="Sort by name").click()
    assert names(page) == original


def test_words_filter_rows_and_the_best_are_bold(page):
    table = page.locator(".table").first
    search = table.get_by_role("searchbox")
    search.fill("swinir 10")
    assert names(page) == ["SwinIR 10 steps"]
    assert table.get_by_role("status").inner_text() == "1 of 8 rows"
    search.fill("SWINIR")
    assert names(page) == ["SwinIR, trained", "SwinIR 10 steps"]
    search.fill("nothing like it")
    assert names(page) == []
    search.fill("")
    assert names(page) == list(ROWS)
    assert table.locator("strong").all_inner_texts() == ["inf", "0.00"]
    assert not page.locator(".table").nth(1).get_by_role("searchbox").is_visible()  # of two rows


def entry(page, chart: int, n: int) -> float:
    """The value in the legend, at full precision."""
    return float(page.locator(".chart").nth(chart).locator(".chart-entry data").nth(n).get_attribute("value"))


def test_the_value_under_the_pointer_is_the_recorded_one(page):
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    box = chart.locator(".chart-plot").bounding_box()
    found = set()
    for across in np.linspace(0.12, 0.97, 9):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + 0.5 * box["height"])
        step = int(chart.locator(".chart-step output").inner_text().replace(",", ""))
        i = int(np.abs(STEPS - step).argmin())
        assert entry(page, 0, 0) == pytest.approx(LOSS.values[i], rel=1e-5)
        tip = chart.locator(".chart-tip").inner_text()
        assert tip.endswith(f" at step {step:,}")
        found.add(step)
    assert len(found) >= 7
    # On the curve itself: the tip names it, and the others fade.
    cursor = chart.locator(".chart-plot circle[r='4']").first.bounding_box()
    page.mouse.move(cursor["x"] + 4, cursor["y"] + 4)
    assert chart.locator(".chart-tip").inner_text().startswith("run a: ")
    assert chart.locator(".chart-plot g.near").count() == 1
    page.mouse.move(box["x"] + 20, box["y"] - 60)
    assert not chart.locator(".chart-tip").is_visible()


def test_the_slider_reads_a_chart_by_keyboard(page):
    chart = page.locator(".chart").first
    slider = chart.get_by_role("slider", name="Step of Training loss")
    slider.focus()
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == f"step 0: run a 0.2, {HOSTILE} 0.1 (step 50)"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").startswith("step 50: run a 0.2 (step 0), ")
    for _ in range(4):
        slider.press("ArrowRight")
    assert chart.locator(".chart-step output").inner_text() == "300"
    slider.press("End")
    assert entry(page, 0, 0) == pytest.approx(LOSS.values[-1], rel=1e-5)
    assert page.locator('[data-choose="image"]').input_value() == "0"  # arrow keys of a chart leave the viewer alone


def test_legend_scale_and_table_of_a_chart(page):
    chart = page.locator(".chart").first
    curves = chart.locator(".chart-plot .curve")
    assert curves.count() == 2
    assert curves.nth(1).get_attribute("d").count("M") == 2  # the gap of a value that is not finite
    path = curves.first.get_attribute("d")
    chart.get_by_label("Logarithmic").uncheck()
    assert curves.first.get_attribute("d") != path
    other = chart.get_by_role("button", name="run a")
    other.click()
    assert (curves.count(), other.get_attribute("aria-pressed")) == (1, "false")
    other.click()
    chart.get_by_label("Logarithmic").check()
    assert curves.first.get_attribute("d") == path
    chart.locator("summary").click()
    chart.locator("tbody tr").first.wait_for()
    cells = [row.locator("th, td").all_inner_texts() for row in chart.locator("tbody tr").all()]
    assert cells[:2] == [["0", "0.2", ""], ["50", "", "0.1"]]
    assert len(cells) == len(set(STEPS) | set(OTHER.steps))
    assert "not finite" in [cell for row in cells for cell in row]
    chart.locator("summary").click()


def test_a_long_curve_keeps_its_extremes(page):
    chart = page.locator(".chart").nth(1)
    path = chart.locator(".chart-plot .curve").get_attribute("d")
    points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", path), float)
    assert 500 < len(points) <= 1000
    slider = chart.get_by_role("slider")
    slider.evaluate("(slider) => { slider.value = 0; slider.dispatchEvent(new Event('input')) }")
    assert entry(page, 1, 0) == 0.0
    peak = float(points[points[:, 1].argmin(), 0])
    chart.scroll_into_view_if_needed()
    box = chart.locator(".chart-plot").bounding_box()
    page.mouse.move(box["x"] + peak, box["y"] + 20)
    assert entry(page, 1, 0) == pytest.approx(LONG.values[12_345], rel=1e-5)
    assert chart.locator(".chart-entry data").inner_text().endswith(" dB")
    assert chart.locator("summary").inner_text() == "Values (thinned)"


def test_the_name_of_an_image_opens_it_in_the_viewer(page):
    page.get_by_role("link", name="Set/two & <last>").click()
    until(page, "() => document.querySelector('[data-choose=image]').value === '1'")
    settle(page)
    box = page.locator(".viewer-stage").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900
    page.get_by_role("link", name="Charts", exact=True).click()
    settle(page)
    assert page.locator('[data-choose="image"]').input_value() == "1"
    assert page.locator("#charts").bounding_box()["y"] == pytest.approx(0, abs=60)
    page.get_by_role("link", name="Set/one").click()
    until(page, "() => document.querySelector('[data-choose=image]').value === '0'")


def test_no_width_scrolls_sideways_and_structure_is_named(page):
    for width in (390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for chart in page.locator(".chart-plot svg").all():
            box = chart.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["width"] >= 300
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.locator("h1").count() == 1
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("navigation", name="Contents").get_by_role("link").all_inner_texts() == [
        "Results",
        "Images",
        "Charts",
        "Details",
    ]
    assert page.get_by_role("heading", level=2).all_inner_texts() == ["Results", "Images", "Charts", "Every image"]
    assert page.get_by_role("figure", name="Layers").count() == 1
    assert page.get_by_role("region", name="Every image").get_by_role("rowheader").count() == 2
    unnamed = page.evaluate("""() => [...document.querySelectorAll('input, button, select')]
        .filter((control) => !(control.labels?.length || control.textContent.trim() || control.getAttribute('aria-label'))).length""")
    assert unnamed == 0


def test_axes_of_differences_are_aligned_and_a_phone_keeps_names_of_rows(open_page, tmp_path):
    def interval(label: str, *values: float) -> Interval:
        mean, low, high = (Number(value, 3, sign=True) for value in values)
        return Interval(label, mean, low, high, True, "is better")

    forest = Forest("PSNR", [interval("a - b", 1, 0.5, 1.5), interval("a long name, step 500 - b", 1000.25, 990, 1010.5)])
    verdict = "the difference is within the noise, because the interval contains 0"
    rows = [["a long name, step 500 - another, step 500", Number(1.0 + i, 3), Number(0.5, 3), verdict] for i in range(2)]
    table = ResultTable("Differences of arms", ["difference", Column("PSNR"), Column("low"), "verdict"], rows)
    write_page(tmp_path / "report.html", "Comparison", {}, [table], differences=[forest])
    for width in (390, 1920):
        page = open_page(tmp_path / "report.html", width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tracks = [track.bounding_box() for track in page.locator(".forest-track").all()]
        assert len({(track["x"], track["width"]) for track in tracks}) == 1
        for row in page.locator(".table tbody tr").all():
            assert row.bounding_box()["height"] < 150
        scrolled = page.locator(".table .scroll")
        scrolled.evaluate("(box) => { box.scrollLeft = box.scrollWidth }")
        assert page.locator(".table tbody th").first.bounding_box()["x"] == pytest.approx(scrolled.bounding_box()["x"], abs=1)


def test_dark_light_and_print(page):
    color = "getComputedStyle(document.querySelectorAll('.chart')[2].querySelector('.curve')).stroke"
    light, paper = page.evaluate(color), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(color) != light
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    page.emulate_media(media="print")
    assert page.evaluate(color) == light
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert not page.locator(".chart-bar, .table-bar, nav").filter(visible=True).count()
    assert page.locator(".chart-plot svg").first.is_visible()
    page.emulate_media(color_scheme="light", media="screen")


def test_without_scripts_the_tables_are_there(open_page, path):
    page = open_page(path, java_script_enabled=False)
    assert names(page) == list(ROWS)
    assert not page.get_by_role("searchbox").filter(visible=True).count()
