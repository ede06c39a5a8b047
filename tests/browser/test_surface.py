"""The interactive page of features over depth and training (irformer.reporting.surface), in a browser."""

import re

import numpy as np
import pytest

from browser.pages import settle, until
from irformer.dynamics.figures import Curve, Dynamics
from irformer.reporting.surface import write_surfaces

STEPS = np.array([0, 100, 200, 300, 400])
CHANNELS = [48, 48, 48]
HOSTILE = "</script><script>throw new Error('escaped')</script>&lt;b>"


def dynamics(growth: float, steps: np.ndarray = STEPS, layers: int = 3) -> Dynamics:
    """Magnitudes that grow with depth and step, and entropies that fall; all values differ."""
    magnitudes = [Curve(steps, 0.01 * (layer + 1.5) * 10 ** (growth * (layer + 1) * steps / 400)) for layer in range(layers)]
    entropies = [Curve(steps, 3.8 - 0.1 * layer - growth * layer * steps / 900) for layer in range(layers)]
    return {"mean_square": magnitudes, "channel_entropy": entropies}


ARMS = {"LayerNorm\n(baseline)": dynamics(1.2), "i-LN": dynamics(0.01)}


@pytest.fixture
def surfaces(tmp_path):
    path = tmp_path / "surfaces.html"
    write_surfaces(path, ARMS, CHANNELS, title="Figure 1", lead="Two runs.")
    return path


def pixels(page, canvas=0) -> str:
    """What a canvas shows, once everything that was asked for is drawn."""
    settle(page)
    return page.locator("canvas").nth(canvas).evaluate("(canvas) => canvas.toDataURL()")


def readout(page, panel=0) -> tuple[int, int, float]:
    """Step, group and value below a panel, the value at full precision."""
    output = page.locator(".panel output").nth(panel)
    step, group = re.fullmatch(r"step ([\d,]+), group (\d+): .*", output.inner_text()).groups()
    return int(step.replace(",", "")), int(group), float(output.locator("data").get_attribute("value"))


def recorded(panel: int, step: int, group: int) -> float:
    statistic, arm = divmod(panel, len(ARMS))
    curve = list(ARMS.values())[arm][("mean_square", "channel_entropy")[statistic]][group - 1]
    return curve.values[list(curve.steps).index(step)]


def drag(page, dx: int, dy: int) -> None:
    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()


def test_all_surfaces_are_drawn_with_their_titles(open_page, surfaces):
    page = open_page(surfaces)
    assert page.locator("canvas").count() == 4
    assert len({pixels(page, n) for n in range(4)}) == 4
    assert page.locator(".panel figcaption").all_inner_texts() == ["LayerNorm\n(baseline)", "i-LN"] * 2
    assert page.locator("h1").inner_text() == "Figure 1"


def test_dragging_turns_all_surfaces(open_page, surfaces):
    page = open_page(surfaces, width=700)
    for dx, dy, turned in ((60, 0, "azimuth"), (0, 60, "tilt")):
        before = [pixels(page, n) for n in range(4)]
        angle = float(page.locator(f"#{turned}").input_value())
        drag(page, dx, dy)
        assert all(pixels(page, n) != image for n, image in enumerate(before))
        assert float(page.locator(f"#{turned}").input_value()) > angle + 10


def test_keys_and_sliders_turn_and_zoom_and_0_resets(open_page, surfaces):
    page = open_page(surfaces, width=700)
    before = pixels(page)
    usual = {control: float(page.locator(f"#{control}").input_value()) for control in ("azimuth", "tilt", "zoom")}
    page.locator("canvas").first.focus()
    keys = {"ArrowRight": ("azimuth", 1), "ArrowLeft": ("azimuth", -1), "ArrowUp": ("tilt", 1), "ArrowDown": ("tilt", -1)}
    for key, (control, sign) in {**keys, "+": ("zoom", 1), "-": ("zoom", -1)}.items():
        page.keyboard.press(key)
        assert pixels(page) != before, key
        assert (float(page.locator(f"#{control}").input_value()) - usual[control]) * sign > 0, key
        page.keyboard.press("0")
        assert pixels(page) == before, key
    for control in usual:
        page.locator(f"#{control}").fill("1")
        assert pixels(page) != before, control
        page.get_by_role("button", name="Reset view").click()
        assert pixels(page) == before, control


def test_keys_glide_where_motion_is_welcome(open_page, surfaces):
    page = open_page(surfaces, reduced_motion="no-preference")
    page.locator("canvas").first.focus()
    page.evaluate("""() => {
        const drawn = CanvasRenderingContext2D.prototype.clearRect;
        window.frames_drawn = 0;
        CanvasRenderingContext2D.prototype.clearRect = function (...box) { window.frames_drawn++; drawn.apply(this, box); };
    }""")
    page.keyboard.press("ArrowRight")
    until(page, "() => window.frames_drawn >= 4 * 4")  # at least four frames of four surfaces


def test_the_wheel_zooms_a_selected_surface_and_else_scrolls_the_page(open_page, surfaces):
    page = open_page(surfaces, height=500)
    page.locator("canvas").first.hover()
    zoom = page.locator("#zoom").input_value()
    page.mouse.wheel(0, 60)
    until(page, "() => scrollY > 0")
    assert page.locator("#zoom").input_value() == zoom
    page.locator("canvas").first.click()
    scrolled = page.evaluate("scrollY")
    page.mouse.wheel(0, -200)
    until(page, "(zoom) => Number(document.getElementById('zoom').value) > zoom", float(zoom))
    assert page.evaluate("scrollY") == scrolled


def test_the_step_slider_moves_the_cross_section_the_profile_and_the_readouts(open_page, surfaces):
    page = open_page(surfaces)
    assert readout(page) == (400, 3, pytest.approx(recorded(0, 400, 3), rel=1e-5))
    before, profile = pixels(page), page.locator(".profile svg").first.inner_html()
    page.locator("#step").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#step").get_attribute("aria-valuetext") == "step 300"
    for panel in range(4):
        assert readout(page, panel) == (300, 3, pytest.approx(recorded(panel, 300, 3), rel=1e-5))
    assert pixels(page) != before
    assert page.locator(".profile svg").first.inner_html() != profile
    assert page.locator(".profile figcaption").all_inner_texts() == ["Across depth at step 300"] * 2


def test_the_value_under_the_pointer_is_a_recorded_value(open_page, surfaces):
    page = open_page(surfaces, width=700, height=1400)
    found = set()
    panels = (0, 3)  # both statistics, both runs
    for panel in panels:
        box = page.locator("canvas").nth(panel).bounding_box()
        for across in np.linspace(0.15, 0.85, 7):
            for down in np.linspace(0.25, 0.8, 4):
                page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
                step, group, value = readout(page, panel)
                assert value == pytest.approx(recorded(panel, step, group), rel=1e-5)
                found.add((panel, step, group))
    for panel in panels:
        assert len({where for where in found if where[0] == panel}) >= 7  # of 15 recorded values


def test_pointing_at_one_surface_shows_the_same_place_on_the_others(open_page, surfaces):
    page = open_page(surfaces)
    others = [pixels(page, n) for n in (1, 2, 3)]
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.68)
    places = {readout(page, panel)[:2] for panel in range(4)}
    assert len(places) == 1
    assert places != {(400, 3)}
    assert all(pixels(page, n) != image for n, image in zip((1, 2, 3), others, strict=True))


def test_what_lies_behind_is_hidden_from_every_side(open_page, tmp_path):
    """Group 1 stands high above the others: from the front its slope hides groups 3 and 4, from behind they lie before it."""
    ridge = {"mean_square": [Curve(STEPS, np.full(5, value)) for value in (1e6, 1e-2, 1e-2, 1e-2)]}
    ridge["channel_entropy"] = [Curve(STEPS, np.full(5, 3.0))] * 4
    path = tmp_path / "ridge.html"
    write_surfaces(path, {"ridge": ridge}, CHANNELS)
    page = open_page(path)
    page.locator("#tilt").fill("12")
    box = page.locator("canvas").first.bounding_box()

    def groups(azimuth: int) -> set[int]:
        page.locator("#azimuth").fill(str(azimuth))
        pixels(page)
        found = set()
        for down in np.linspace(0.2, 0.8, 24):
            page.mouse.move(box["x"] + box["width"] * 0.51, box["y"] + box["height"] * down)
            step, group, _ = readout(page)
            if step != 400:  # beside the surface, the readout is that of the last step
                found.add(group)
        return found

    assert groups(180) >= {1, 3, 4}
    assert groups(0) == {1, 2}


def test_touch_turns_sideways_and_pinching_zooms(open_page, surfaces):
    page = open_page(surfaces, width=390, height=844, has_touch=True)
    before, azimuth = pixels(page), float(page.locator("#azimuth").input_value())
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        touch.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]}
        )

    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + 120, box["y"] + 120
    fingers("touchStart", (x, y))
    for n in range(1, 6):
        fingers("touchMove", (x + 15 * n, y))
    fingers("touchEnd")
    assert pixels(page) != before
    assert float(page.locator("#azimuth").input_value()) > azimuth + 10
    fingers("touchStart", (x, y))
    fingers("touchStart", (x, y), (x + 40, y))
    for n in range(1, 6):
        fingers("touchMove", (x - 8 * n, y), (x + 40 + 8 * n, y))
    fingers("touchEnd")
    pixels(page)
    assert float(page.locator("#zoom").input_value()) > 0.5


def test_no_width_scrolls_sideways(open_page, surfaces):
    page = open_page(surfaces)
    page.locator(".data summary").click()
    for width in (390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for box in [canvas.bounding_box() for canvas in page.locator("canvas").all()]:
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["width"] >= 250


def test_the_dark_scheme_redraws_text_and_surfaces(open_page, surfaces):
    page = open_page(surfaces, color_scheme="light")
    light, paper = pixels(page), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert pixels(page) != light
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


@pytest.mark.slow
def test_a_dense_screen_gets_more_pixels(open_page, surfaces):
    sizes = []
    for ratio in (1, 2):
        page = open_page(surfaces, device_scale_factor=ratio)
        pixels(page)
        sizes.append(page.locator("canvas").first.evaluate("(canvas) => canvas.width / canvas.clientWidth"))
    assert sizes == [pytest.approx(1, abs=0.01), pytest.approx(2, abs=0.01)]


@pytest.mark.slow
def test_printing_uses_the_light_colors(open_page, surfaces):
    page = open_page(surfaces, color_scheme="dark")
    dark = pixels(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()") != dark
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()") == dark
    assert page.pdf().startswith(b"%PDF")


def test_labels_and_tables_hold_all_values(open_page, surfaces):
    page = open_page(surfaces)
    assert page.locator("canvas").nth(3).get_attribute("aria-label") == (
        "Channel entropy of i-LN as a surface over depth and training step: in the last of 3 groups, 3.6 at step 0 and 3.591 at step 400."
    )
    assert page.locator("table").count() == 0
    page.locator(".data summary").click()
    page.get_by_role("table").first.wait_for()
    tables = page.get_by_role("table").all()
    assert [table.locator("caption").inner_text() for table in tables][:2] == [
        "Feature magnitude: LayerNorm (baseline)",
        "Feature magnitude: i-LN",
    ]
    for panel, table in enumerate(tables):
        rows = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
        assert [row[0] for row in rows] == [str(step) for step in STEPS]
        assert [[float(cell) for cell in row[1:]] for row in rows] == [
            [pytest.approx(recorded(panel, step, group), rel=1e-3) for group in (1, 2, 3)] for step in STEPS
        ]


def test_runs_may_differ_in_depth_and_steps_and_hold_values_that_are_not_finite(open_page, tmp_path):
    diverged = dynamics(1.0, np.array([0, 7, 350]), layers=2)
    diverged["mean_square"][1].values[2] = np.inf
    diverged["mean_square"][0].values[0] = 0.0
    path = tmp_path / "odd.html"
    write_surfaces(path, {"odd": diverged, "even": ARMS["i-LN"], "single": dynamics(1.0, np.array([5]), layers=1)}, [48])
    page = open_page(path)
    assert page.locator(".panel output").all_inner_texts()[:2] == ["step 350, group 2: not finite", "step 400, group 3: 0.0375"]
    assert readout(page, 2)[:2] == (5, 1)


def test_titles_cannot_leave_the_data_or_add_elements(open_page, tmp_path):
    path = tmp_path / "hostile.html"
    write_surfaces(path, {HOSTILE: ARMS["i-LN"]}, CHANNELS, title=HOSTILE, lead=HOSTILE)
    page = open_page(path)
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator(".panel figcaption").first.inner_text() == HOSTILE
    assert page.locator("script").count() == 2
