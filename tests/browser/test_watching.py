"""The fixtures notice what they are there to notice."""

import pytest

OUTSIDE = "http://127.0.0.1:9/image.png"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>console.error('broken')</script>", "error: broken"),
        ("<script>console.warn('doubtful')</script>", "warning: doubtful"),
        ("<script>undefined.name</script>", "exception: Cannot read properties of undefined"),
        (f"<img src='{OUTSIDE}'>", f"request: {OUTSIDE}"),
        ("<img src='beside.png'>", "request: file://"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEAAAAALAAAAAABAAEAAAIA'>", None),
        ("<script>console.log('fine')</script>", None),
    ],
)
def test_a_page_that_errs_or_requests_is_noticed(open_page, watched, tmp_path, body, problem):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><link rel='icon' href='data:,'>{body}", encoding="utf-8")
    open_page(path).wait_for_load_state("networkidle")
    problems, watched.problems = watched.problems, []
    if problem is None:
        assert problems == []
    else:
        assert any(found.startswith(problem) for found in problems)
