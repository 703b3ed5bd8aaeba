"""A real browser on the real page with the real default models.

Needs Playwright and a Chromium; where one is missing the tests are skipped and say so. The Chromium is the
one named by OVSEG_CHROMIUM, else the system's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from visiting import Visit, visiting

from ovseg_demo.page.layout import build, served
from ovseg_demo.page.pool import ModelPool
from ovseg_demo.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    found = os.environ.get("OVSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("needs a Chromium: install one, or name it in OVSEG_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the page is served; one server for all tests, working at 320 pixels."""
    settings = Settings(max_side_px=320)
    page = build(settings, ModelPool(settings))
    address = served(page, settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield address
    page.close(verbose=False)


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """A visitor on a desktop."""
    yield from visiting(browser, url, viewport={"width": 1400, "height": 950})


@pytest.fixture
def phone(browser: Browser, url: str) -> Iterator[Visit]:
    """A visitor on a phone."""
    yield from visiting(browser, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)


@pytest.fixture
def at_night(browser: Browser, url: str) -> Iterator[Visit]:
    """A visitor whose system is set to dark."""
    yield from visiting(browser, url, viewport={"width": 1400, "height": 950}, color_scheme="dark")
