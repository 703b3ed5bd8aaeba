"""A visitor in a real browser, for the tests beside this file."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_MS = 1000 * int(os.environ.get("OVSEG_PATIENCE_S", "240"))
"""For what takes the models' work; a busy machine may need more."""


def chromium() -> str | None:
    """Path of the browser: OVSEG_CHROMIUM, else the system's."""
    return os.environ.get("OVSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Visit:
    """One visitor: a page, its errors, and its requests to other hosts."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def choose(self, photo: Path) -> None:
        """Upload a photo and wait until it is shown."""
        self.page.locator("#photo input[type=file]").first.set_input_files(photo)
        self.page.wait_for_selector(".ov-stage[data-state=chosen]", timeout=PATIENCE_MS)

    def type(self, words: str) -> None:
        """Type words as text, in the place of those that are there."""
        if not self.page.locator("#words textarea").is_visible():
            self.page.locator(".ch-text").click()
        self.page.locator("#words textarea").fill(words)

    def run(self, photo: str = "cow.jpg", words: str = "cow, grass, zebra") -> None:
        """Upload a photo, type words, run, and wait for the result."""
        self.choose(EXAMPLES / photo)
        self.type(words)
        self.page.locator("#run").click()
        self.wait_for_result()

    def wait_for_result(self) -> None:
        self.page.wait_for_selector(".ov-stage[data-state=result]", timeout=PATIENCE_MS)
        self.page.locator("#run").wait_for(timeout=PATIENCE_MS)

    def waits_for(self, text: str, where: str = ".ov-status") -> None:
        """Wait until a part of the page holds the text."""
        self.page.wait_for_function(
            "([where, text]) => document.querySelector(where)?.textContent.includes(text)",
            arg=[where, text],
            timeout=PATIENCE_MS,
        )

    def waits_for_other_words(self) -> None:
        """Wait until the page says that only the words were scored again."""
        self.waits_for("Only the words were scored again", ".ov-timing")

    @property
    def legend(self) -> str:
        return self.page.locator(".ov-facts").inner_text()

    @property
    def status(self) -> str:
        return self.page.locator(".ov-status").inner_text()

    def take_away(self, folder: Path) -> Path:
        """Download everything as a zip into a folder."""
        with self.page.expect_download(timeout=PATIENCE_MS) as coming:
            self.page.locator("#make").click()
        coming.value.save_as(folder / "result.zip")
        return folder / "result.zip"

    def pixels(self) -> str:
        """What the canvas shows, as a hash of every pixel."""
        return sha256(self._canvas().encode()).hexdigest()

    def picture(self) -> NDArray[np.int16]:
        """What the canvas shows, (H, W, 3) in 0..255."""
        content = base64.b64decode(self._canvas().partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.int16)

    def _canvas(self) -> str:
        seen: str = self.page.evaluate("() => document.querySelector('.ov-canvas').toDataURL()")
        return seen


def visiting(browser: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """Open the page in a fresh browser profile, and close it afterwards."""
    visitor = browser.new_context(**context)
    visitor.set_default_timeout(PATIENCE_MS / 12)
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
