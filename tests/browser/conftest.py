"""Pages in Chromium. Every page that a test opens must log no error and request nothing."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Watched:
    """What pages did that no page may do.

    Args:
        problems: console messages of errors and warnings, uncaught exceptions, and requests other than for the page itself.
    """

    problems: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", lambda request: self._requested(request, page))

    def _said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.problems.append(f"{kind}: {text}")

    def _requested(self, request: Any, page: Any) -> None:
        opened = request.is_navigation_request() and request.frame == page.main_frame and request.url.startswith("file:")
        if not opened and not request.url.startswith(("data:", "blob:")):
            self.problems.append(f"request: {request.url}")


# Not for the whole session: the event loop of the client would then be running in other tests of the same process.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or any other that is installed."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pages in a browser: playwright is not installed (pip install playwright)"
    )
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip(f"pages in a browser: none of {', '.join(_NAMES)} is installed (apt-get install chromium)")
    # Chromium refuses to start its sandbox for root, as which containers run.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as client:
        started = client.chromium.launch(executable_path=executable, args=arguments)
        yield started
        started.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    assert watched.problems == []


@pytest.fixture
def open_page(browser: Any, watched: Watched) -> Iterator[Callable[..., Any]]:
    """Open a file: `open_page(path, width, height, fragment, **context)`, where `context` are arguments of playwright's `new_context`."""
    with opening(browser, watched) as opened:
        yield opened


@contextmanager
def opening(browser: Any, watched: Watched) -> Iterator[Callable[..., Any]]:
    """`open_page` for as long as a caller wants, so that several tests can share a page."""
    contexts = []

    def opened(path: Path, width: int = 1280, height: int = 900, fragment: str = "", **context: Any) -> Any:
        settings = {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", **context}
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        watched.watch(page)
        page.goto(path.as_uri() + fragment)
        return page

    try:
        yield opened
    finally:
        for context in contexts:
            context.close()
