"""The image viewer (irformer.reporting.viewer), in a browser."""

import base64
import io
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import picture
from matplotlib import colormaps
from PIL import Image

from browser.conftest import Watched, opening
from browser.pages import settle, until
from irformer.reporting.page import write_page
from irformer.reporting.tables import Number
from irformer.reporting.viewer import Version, ViewedImage

HEIGHT, WIDTH = 48, 64
HIDE_OVERLAYS = ".viewer-handle, .viewer-tag { visibility: hidden }"


def versions(seed: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, np.ndarray]:
    truth = picture(height, width, seed=seed)
    noise = np.random.default_rng(seed).integers(-40, 41, truth.shape)
    return {
        "input": truth[::2, ::2],
        "ln": np.clip(truth + noise, 0, 255).astype(np.uint8),
        "iln": np.clip(truth + noise // 4, 0, 255).astype(np.uint8),
        "twin": np.clip(truth + noise // 4, 0, 255).astype(np.uint8),
        "truth": truth,
    }


IMAGES = {"Set/first": versions(1), "Set/second & <last>": versions(2, 40, 40)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    images = [
        ViewedImage(
            name,
            tuple(Version(key, pixels, {"psnr_y": Number(31.234, 2)} if key == "iln" else {}) for key, pixels in shown.items()),
            "truth",
        )
        for name, shown in IMAGES.items()
    ]
    path = tmp_path_factory.mktemp("viewer") / "report.html"
    write_page(path, "Run", {}, [], images=images)
    return path


@pytest.fixture(scope="module")
def shared(browser, report):
    """A page for all tests that start from the same view, and what it did that no page may do."""
    watched = Watched()
    with opening(browser, watched) as opened:
        yield ready(opened(report)), watched


@pytest.fixture
def page(shared):
    """The page as it is when it opens."""
    page, watched = shared
    page.mouse.move(0, 0)
    page.evaluate("""() => {
        document.activeElement.blur();
        scrollTo(0, 0);
        history.replaceState(null, "", "#image=Set/first&left=twin&right=truth");
        dispatchEvent(new HashChangeEvent("hashchange"));
    }""")
    until(page, "() => document.querySelector('[data-choose=image]').value === '0'")
    settle(page)
    yield page
    assert watched.problems == []


def ready(page):
    page.locator(".viewer-versions button").first.wait_for()
    settle(page)
    return page


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def fill(page, selector: str, value: object) -> None:
    page.locator(selector).fill(str(value))
    settle(page)


def canvas(page) -> np.ndarray:
    """The stage's pixels, [H, W, 4]."""
    url = page.locator(".viewer-stage canvas").evaluate("(canvas) => canvas.toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def zoom(page) -> float:
    return float(page.locator(".viewer-zoom output").inner_text().rstrip("%")) / 100


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels.repeat(factor, 0).repeat(factor, 1)


def shown(page) -> np.ndarray:
    """The image as drawn at the fitting zoom, without the empty area around it."""
    drawn = canvas(page)
    rows, columns = np.nonzero(drawn[..., 3].any(1))[0], np.nonzero(drawn[..., 3].any(0))[0]
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, :3]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_number_keys_show_one_version_in_place_with_its_exact_pixels(page):
    for number, (name, pixels) in enumerate(IMAGES["Set/first"].items(), start=1):
        press(page, str(number))
        factor = int(zoom(page)) * HEIGHT // len(pixels)
        np.testing.assert_array_equal(shown(page), enlarged(pixels, factor))
        pressed = [button.get_attribute("aria-pressed") for button in page.locator(".viewer-versions button").all()]
        assert pressed == [str(n == number).lower() for n in range(1, 6)]
        assert page.locator(".viewer-live").inner_text().startswith(f"Set/first: {name}")
        assert not page.locator(".viewer-handle").is_visible()


def test_the_slider_divides_left_from_right_at_a_whole_pixel(page):
    factor = int(zoom(page))
    left, right = (enlarged(IMAGES["Set/first"][name], factor) for name in ("twin", "truth"))
    for split, expected in ((0, right), (100, left)):
        fill(page, ".viewer-split", split)
        np.testing.assert_array_equal(shown(page), expected)
    fill(page, ".viewer-split", 47.3)
    width = canvas(page).shape[1]
    at = round(0.473 * width) - (width - left.shape[1]) // 2
    np.testing.assert_array_equal(shown(page), np.concatenate([left[:, :at], right[:, at:]], 1))


@pytest.mark.parametrize(("width", "ratio"), [pytest.param(390, 1, marks=pytest.mark.slow), (1281, 1.5)])
def test_identical_images_under_the_slider_differ_in_no_pixel(open_page, tmp_path, width, ratio):
    """Reduced to fit, at a fraction of a pixel, and enlarged."""
    shown = tuple(Version(name, pixels) for name, pixels in versions(3, 60, 1800).items())
    write_page(tmp_path / "report.html", "Run", {}, [], images=[ViewedImage("wide", shown, "truth")])
    page = ready(open_page(tmp_path / "report.html", width=width, device_scale_factor=ratio))

    def screens(where: str, right: str, *splits: float) -> set[bytes]:
        found = set()
        for split in splits:
            page.evaluate("(hash) => { location.hash = hash }", f"left=iln&right={right}&split={split}&{where}")
            until(page, "(split) => Number(document.querySelector('.viewer-split').value) === split", split)
            settle(page)
            found.add(page.locator(".viewer-stage").screenshot(style=HIDE_OVERLAYS))
        return found

    for where in ("", "zoom=7.37&x=20.7&y=11.2", "zoom=32&x=500&y=30"):
        assert len(screens(where, "twin", 0, 33.3, 100)) == 1
        assert len(screens(where, "ln", 0, 100)) == 2


def test_dragging_the_handle_moves_the_slider(page):
    box = page.locator(".viewer-handle").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 40
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 200, y, steps=3)
    page.mouse.up()
    settle(page)
    stage = page.locator(".viewer-stage").bounding_box()
    assert float(page.locator(".viewer-split").input_value()) == pytest.approx(50 - 100 * 200 / stage["width"], abs=0.3)


def test_the_slider_moves_by_keys_and_leaves_the_image_alone(page):
    page.locator(".viewer-split").focus()
    press(page, "ArrowRight")
    assert float(page.locator(".viewer-split").input_value()) == pytest.approx(50.1)
    assert page.locator('[data-choose="image"]').input_value() == "0"
    press(page, "2")
    assert page.locator('[aria-pressed="true"]').inner_text().startswith("2 ln")


def test_s_returns_to_the_slider(page):
    before = canvas(page)
    press(page, "1")
    assert not np.array_equal(canvas(page), before)
    press(page, "s")
    np.testing.assert_array_equal(canvas(page), before)


def test_keys_zoom_to_32_times_with_crisp_pixels(page):
    press(page, "5", *["+"] * 8)
    assert page.locator(".viewer-zoom output").inner_text() == "3200%"
    drawn = canvas(page)[..., :3]
    left, top = (drawn.shape[1] + 1) // 2, (drawn.shape[0] + 1) // 2  # the center of the image is the corner of a pixel
    truth = IMAGES["Set/first"]["truth"]
    for y in range(-3, 3):
        for x in range(-3, 3):
            block = drawn[top + 32 * y : top + 32 * (y + 1), left + 32 * x : left + 32 * (x + 1)]
            assert (block == truth[HEIGHT // 2 + y, WIDTH // 2 + x]).all()
    press(page, "0")
    assert zoom(page) < 32


def test_the_wheel_zooms_a_selected_image_about_the_pointer(page):
    stage = page.locator(".viewer-stage")
    stage.scroll_into_view_if_needed()
    stage.focus()
    press(page, "5")
    drawn, box = canvas(page), stage.bounding_box()
    x, y = 0.6 * box["width"], 0.4 * box["height"]
    page.mouse.move(box["x"] + x, box["y"] + y)
    before = zoom(page)
    page.mouse.wheel(0, -120)
    until(page, "(before) => parseFloat(document.querySelector('.viewer-zoom output').textContent) > before", before * 100)
    settle(page)
    after = canvas(page)
    same = [(after[int(y) + dy, int(x) + dx] == drawn[int(y), int(x)]).all() for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert any(same)


def test_dragging_and_shift_with_arrows_move_a_zoomed_view(page):
    press(page, "5", "+", "+")
    before = canvas(page)
    box = page.locator(".viewer-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=3)
    page.mouse.up()
    settle(page)
    moved = canvas(page)
    np.testing.assert_array_equal(moved[:, 60:], before[:, :-60])
    press(page, "Shift+ArrowRight")
    np.testing.assert_array_equal(canvas(page), before)


def test_the_error_map_shows_the_largest_error_of_the_channels(page):
    press(page, "2", "e")
    ln, truth = (IMAGES["Set/first"][name].astype(int) for name in ("ln", "truth"))
    error = np.abs(ln - truth).max(2).clip(0, 32)
    expected = (colormaps["inferno"](np.linspace(0, 1, 33))[error][..., :3] * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(shown(page), enlarged(expected, int(zoom(page))))
    assert page.locator('[data-choose="error"]').is_checked()
    assert page.locator(".viewer-scale").is_visible()
    press(page, "1")
    assert page.locator(".viewer-left").inner_text() == "input (no error map)"
    press(page, "2", "e")
    np.testing.assert_array_equal(shown(page), enlarged(IMAGES["Set/first"]["ln"], int(zoom(page))))


def test_psnr_is_that_of_the_visible_part_and_of_the_lens(page):
    def value(number: int, kind: str) -> float:
        return float(page.locator(".viewer-versions button").nth(number - 1).locator(f".in-{kind}").inner_text().removesuffix(" dB"))

    shapes = IMAGES["Set/first"]
    assert value(2, "view") == pytest.approx(psnr(shapes["ln"], shapes["truth"]), abs=0.006)
    middle = np.s_[HEIGHT // 2 - 11 : HEIGHT // 2 + 11, WIDTH // 2 - 11 : WIDTH // 2 + 11]
    assert value(2, "lens") == pytest.approx(psnr(shapes["ln"][middle], shapes["truth"][middle]), abs=0.006)
    press(page, *["+"] * 8)
    place = page.locator(".viewer-place").inner_text()
    width, height, left, top = map(int, re.match(r"In view: (\d+) \S (\d+) pixels from \((\d+), (\d+)\)\.", place).groups())
    assert (width, height) != (WIDTH, HEIGHT)
    part = np.s_[top : top + height, left : left + width]
    for number, name in ((2, "ln"), (3, "iln")):
        assert value(number, "view") == pytest.approx(psnr(shapes[name][part], shapes["truth"][part]), abs=0.006)


def test_the_lens_follows_the_pointer_in_all_versions(page):
    lenses = page.locator(".viewer-versions canvas")
    before = [lens.evaluate("(canvas) => canvas.toDataURL()") for lens in lenses.all()]
    box = page.locator(".viewer-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] * 0.3)
    settle(page)
    assert all(lens.evaluate("(canvas) => canvas.toDataURL()") != image for lens, image in zip(lenses.all(), before, strict=True))
    assert "around the pointer" in page.locator(".viewer-place").inner_text()


def test_versions_are_labeled_with_their_metrics(page):
    button = page.locator(".viewer-versions button").nth(2)
    assert re.sub(r"\s+", " ", button.inner_text()).startswith("3 iln psnr_y 31.23 PSNR in view")
    assert page.locator(".viewer-versions button").nth(4).locator("dl").inner_text() == ""  # the reference
    press(page, "3")
    assert page.locator(".viewer-stage").get_attribute("aria-label") == "Set/first: iln, psnr_y 31.23"


def test_arrow_keys_change_the_image_and_keep_what_is_shown(page):
    press(page, "3", "ArrowRight")
    until(page, "() => document.querySelector('.viewer-live').textContent.includes('image 2 of 2')")
    assert page.locator(".viewer-live").inner_text() == "Set/second & <last>: iln, psnr_y 31.23, image 2 of 2"
    np.testing.assert_array_equal(shown(page), enlarged(IMAGES["Set/second & <last>"]["iln"], int(zoom(page))))
    press(page, "ArrowRight")
    until(page, "() => document.querySelector('.viewer-live').textContent.includes('image 1 of 2')")
    press(page, "ArrowLeft")
    until(page, "() => document.querySelector('[data-choose=image]').value === '1'")


def test_the_address_restores_the_view(open_page, report, page):
    press(page, "ArrowRight")
    until(page, "() => document.querySelector('[data-choose=image]').value === '1'")
    page.locator('[data-choose="left"]').select_option("ln")
    press(page, "+", "Shift+ArrowRight", "e")
    fill(page, ".viewer-split", 30)
    until(page, "() => location.hash.includes('split=30')")
    again = ready(open_page(report, fragment="#" + urlsplit(page.url).fragment))
    np.testing.assert_array_equal(canvas(again), canvas(page))
    assert again.locator(".viewer-left").inner_text() == "ln"
    press(page, "3")
    until(page, "() => location.hash.includes('show=iln')")
    again.evaluate("(hash) => { location.hash = hash }", urlsplit(page.url).fragment)
    until(again, "() => document.querySelector('[aria-pressed=true]') !== null")
    settle(again)
    np.testing.assert_array_equal(canvas(again), canvas(page))


@pytest.mark.parametrize(
    "fragment", ["#image=none&left=none&split=abc&zoom=-1&x=NaN&show=%00", "#%E0%A4%A", "#split=1e99&zoom=1e99&x=1e99&y=-1e99"]
)
def test_a_wrong_address_still_shows_images(open_page, report, fragment):
    page = ready(open_page(report, fragment=fragment))
    assert page.locator('[data-choose="image"]').input_value() == "0"
    assert 0 <= float(page.locator(".viewer-split").input_value()) <= 100
    assert canvas(page)[..., 3].any()


def test_the_address_is_left_alone_until_the_view_changes(open_page, report):
    page = ready(open_page(report, fragment="#tables"))
    page.wait_for_timeout(300)
    assert urlsplit(page.url).fragment == "tables"
    press(page, "1")
    until(page, "() => location.hash.includes('show=input')")
    page.evaluate("() => { location.hash = 'tables' }")
    settle(page)
    assert page.locator('[aria-pressed="true"]').inner_text().startswith("1 input")


def test_no_width_scrolls_sideways(open_page, report):
    page = ready(open_page(report))
    for width in (390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(".viewer-stage").bounding_box()
        assert box["width"] >= min(340, width - 50)
        assert box["x"] >= 0


def test_a_pinch_zooms_and_one_finger_scrolls_the_page_where_the_image_fits(open_page, report):
    page = ready(open_page(report, width=390, height=844, has_touch=True))
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        touch.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]}
        )

    assert page.locator(".viewer-stage").evaluate("(stage) => getComputedStyle(stage).touchAction") == "pan-y"
    box, before = page.locator(".viewer-stage").bounding_box(), zoom(page)
    x, y = box["x"] + 60, box["y"] + 120
    fingers("touchStart", (x, y))
    fingers("touchStart", (x, y), (x + 60, y))
    for n in range(1, 6):
        fingers("touchMove", (x - 8 * n, y), (x + 60 + 8 * n, y))
    fingers("touchEnd")
    settle(page)
    assert zoom(page) > 1.5 * before
    assert page.locator(".viewer-stage").evaluate("(stage) => getComputedStyle(stage).touchAction") == "none"


def test_a_large_image_says_which_part_of_it_the_page_holds(open_page, tmp_path):
    truth = picture(200, 300)
    changed = truth.copy()
    changed[120:160, 200:260] ^= 85
    image = ViewedImage("large", (Version("input", truth[::4, ::4]), Version("changed", changed), Version("truth", truth)), "truth")
    write_page(tmp_path / "report.html", "Run", {}, [], images=[image], image_bytes=60_000)
    page = ready(open_page(tmp_path / "report.html"))
    press(page, "2")
    place = page.locator(".viewer-place").inner_text()
    width, height, left, top = map(int, re.match(r"In view: (\d+) \S (\d+) pixels from \((\d+), (\d+)\) of 300 \S 200;", place).groups())
    assert left <= 200
    assert left + width >= 260
    np.testing.assert_array_equal(shown(page), enlarged(changed[top : top + height, left : left + width], int(zoom(page))))
    assert page.locator(".viewer-place img").is_visible()
    press(page, "1")
    factor = 4 * int(zoom(page))
    small = truth[::4, ::4][top // 4 : (top + height) // 4, left // 4 : (left + width) // 4]
    np.testing.assert_array_equal(shown(page), enlarged(small, factor))
