"""A browser for pages that people look at: Chromium, driven by playwright, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}


@contextmanager
def opened() -> Iterator[Any]:
    """Give a browser; the test is skipped where none is installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser was found ({', '.join(NAMES)})")
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, as tests do in a container.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Seen:
    """A page that was opened from a file, and what it did."""

    def __init__(self, browser: Any, path: Path, screen: str, scheme: str = "light") -> None:
        width, height = SCREENS[screen]
        self.width, self.height = width, height
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=screen == "phone",
            is_mobile=screen == "phone",
        )
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def all(self, script: str) -> Any:
        """Return what a script finds in the page."""
        return self.page.evaluate(script)

    def unfold(self) -> None:
        """Open everything that is folded."""
        self.all("document.querySelectorAll('details').forEach((each) => (each.open = true))")
