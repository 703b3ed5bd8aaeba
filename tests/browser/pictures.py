"""Make the results of the examples, their overview and the screenshots with the real models.

To be run when weights, words or the page change.

    python -m tests.browser.pictures

computes the examples' results anew, the overview of them, and the screenshots of the README, which need
Playwright and Chromium. `--screenshots` leaves the results as they are.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from PIL import Image

from ovseg_demo.page import example_results
from ovseg_demo.page.examples import FOLDER, load_examples
from ovseg_demo.page.layout import build, served
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings
from tests.benchmarks import overview
from tests.browser.visiting import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP = {"viewport": {"width": 1360, "height": 860}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


def show(page: Page, example: str) -> None:
    """Click an example and wait until its result is drawn."""
    place = [one.photo.stem for one in load_examples()].index(example)
    title = load_examples()[place].title
    page.locator("#examples button").nth(place).click()
    page.wait_for_function(
        "(title) => document.querySelector('.ov-timing').textContent.includes(title)", arg=title
    )
    page.wait_for_function("() => document.querySelector('#photo img')?.complete")
    page.wait_for_timeout(500)


def take(browser: Browser, url: str, name: str, example: str, mode: str, **context: Any) -> None:
    """One screenshot, as `examples/results/NAME.jpg`."""
    visitor = browser.new_context(**context)
    visitor.set_default_timeout(120_000)
    page = visitor.new_page()
    page.goto(url)
    page.wait_for_selector(".ov-stage[data-state=result]")
    show(page, example)
    page.locator(f"[data-mode={mode}]").click()
    if context.get("is_mobile"):
        page.locator(".ov-bar").scroll_into_view_if_needed()
        page.evaluate("() => document.querySelector('.ov-bar').scrollIntoView()")
    else:
        box = page.locator(".ov-canvas").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + 0.55 * box["width"], box["y"] + 0.55 * box["height"])
        page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot()))
    target = FOLDER / "results" / f"{name}.jpg"
    picture.convert("RGB").save(target, quality=82, optimize=True)
    visitor.close()
    print(f"{target.relative_to(FOLDER.parent)}: {target.stat().st_size:,} bytes")


def screenshots(executable: str) -> None:
    """All screenshots of the README."""
    from playwright.sync_api import sync_playwright

    settings = Settings()
    page = build(settings, ModelPool(settings))
    url = served(page, settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        take(browser, url, "page", "street", "adapted", **DESKTOP)
        take(browser, url, "page-dark", "pagoda", "split", color_scheme="dark", **DESKTOP)
        take(browser, url, "page-difference", "cow", "difference", **DESKTOP)
        take(browser, url, "page-phone", "raccoon", "adapted", **PHONE)
        browser.close()
    page.close(verbose=False)


def main() -> None:
    """Make everything, or the screenshots alone."""
    if "--screenshots" not in sys.argv[1:]:
        example_results.main()
        overview.main()
    found = chromium()
    if not found:
        sys.exit("The screenshots need Chromium: install it, or name it in OVSEG_CHROMIUM.")
    screenshots(found)


if __name__ == "__main__":
    main()
