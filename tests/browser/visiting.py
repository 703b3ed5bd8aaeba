"""A visitor in a real browser, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_MS = 120_000


@dataclass
class Visit:
    """One visitor: a page, and everything it complained about or asked others for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def run(self, photo: str = "cow.jpg", words: str = "cow, grass, zebra") -> None:
        """Uploads a photo, types words, runs, and waits for the result."""
        self.page.locator("#photo input[type=file]").first.set_input_files(EXAMPLES / photo)
        self.page.locator("#photo img").wait_for(timeout=PATIENCE_MS)
        self.page.locator("#words textarea").fill(words)
        self.page.locator("#run").click()
        self.wait_for_result()

    def wait_for_result(self) -> None:
        self.page.wait_for_selector(".ov-stage[data-state=result]", timeout=PATIENCE_MS)
        self.page.locator("#run").wait_for(timeout=PATIENCE_MS)

    def waits_for_status(self, text: str) -> None:
        """Waits until the line under the picture holds the text."""
        self.page.wait_for_function(
            "(text) => document.querySelector('.ov-status').textContent.includes(text)",
            arg=text,
            timeout=PATIENCE_MS,
        )

    @property
    def status(self) -> str:
        return self.page.locator(".ov-status").inner_text()

    def pixels(self) -> list[int]:
        """A coarse look at what the canvas shows: 16 x 16 colours in a row."""
        seen: list[int] = self.page.evaluate(
            """() => {
              const small = document.createElement("canvas");
              small.width = small.height = 16;
              const context = small.getContext("2d");
              context.drawImage(document.querySelector(".ov-canvas"), 0, 0, 16, 16);
              return [...context.getImageData(0, 0, 16, 16).data];
            }"""
        )
        return seen


def visiting(browser: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """Opens the page in a fresh browser profile, and closes it afterwards."""
    visitor = browser.new_context(**context)
    visitor.set_default_timeout(20_000)
    one = Visit(visitor.new_page())
    one.page.on("console", lambda m: one.complaints.append(m.text) if m.type == "error" else None)
    one.page.on("pageerror", lambda e: one.complaints.append(str(e)))
    one.page.on("request", lambda r: one.elsewhere.append(r.url) if not _ours(r.url, url) else None)
    one.page.goto(url)
    one.page.wait_for_selector(".ov-stage", timeout=PATIENCE_MS)
    yield one
    visitor.close()


def _ours(asked: str, url: str) -> bool:
    return asked.startswith((url.rstrip("/"), "data:", "blob:"))
