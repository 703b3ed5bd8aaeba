"""A real browser on the real page with the real default models.

Needs Playwright and a Chromium; where one is missing the tests are skipped and say so. The Chromium is the
one named by OVSEG_CHROMIUM, else the system's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from visiting import Visit, chromium, visiting

from ovseg_demo.page.layout import build, served
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.proposals import Prompt, PromptableProposer, PromptedMasks
from ovseg_demo.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from ovseg_demo.proposals import Proposals, Proposer


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    found = chromium()
    if not found:
        pytest.skip("needs a Chromium: install one, or name it in OVSEG_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A proposer that counts how often its work began, ended, and was stopped before its end."""

    def __init__(self, proposer: Proposer) -> None:
        self.proposer, self.name = proposer, proposer.name
        self.begun = self.ended = self.stopped = 0

    def stream(self, image: NDArray[np.uint8]) -> Generator[float, None, Proposals]:
        self.begun += 1
        try:
            found = yield from self.proposer.stream(image)
        except GeneratorExit:
            self.stopped += 1
            raise
        self.ended += 1
        return found

    def embed_image(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert isinstance(self.proposer, PromptableProposer)
        return self.proposer.embed_image(image)

    def prompt(self, embedding: NDArray[np.float32], prompt: Prompt, size: tuple[int, int]) -> PromptedMasks:
        assert isinstance(self.proposer, PromptableProposer)
        return self.proposer.prompt(embedding, prompt, size)


@pytest.fixture(scope="session")
def pool() -> ModelPool:
    """The default models, working at 320 pixels."""
    return ModelPool(Settings(max_side_px=320))


@pytest.fixture(scope="session")
def watched(pool: ModelPool) -> Watched:
    segmenter = pool.get(pool.default)
    segmenter.proposer = Watched(segmenter.proposer)
    return segmenter.proposer


@pytest.fixture(scope="session")
def url(pool: ModelPool, watched: Watched) -> Iterator[str]:
    """Where the page is served; one server for all tests."""
    page = build(pool.settings, pool)
    address = served(
        page, pool.settings, pool=pool, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1"
    )
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


@pytest.fixture
def phone_at_night(browser: Browser, url: str) -> Iterator[Visit]:
    """A visitor on a phone that is set to dark."""
    size = {"width": 390, "height": 844}
    yield from visiting(browser, url, viewport=size, has_touch=True, is_mobile=True, color_scheme="dark")


@pytest.fixture
def new_to_all(pool: ModelPool) -> ModelPool:
    """The pool without analysed photos of earlier tests."""
    pool.get(pool.default).photos.clear()
    return pool
