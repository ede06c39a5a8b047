"""Waiting for what a page does. Playwright's own `wait_for_function` evaluates text in the page, which the pages' policy forbids."""

import time
from typing import Any


def settle(page: Any) -> None:
    """Wait until everything that was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(page: Any, condition: str, argument: object = None, seconds: float = 20) -> None:
    """Wait until a JavaScript function returns true."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        page.wait_for_timeout(20)
