"""What a visitor did survives a reload, Back, a new photo and a server that goes away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from visiting import EXAMPLES, PATIENCE_MS, Visit, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow


def test_a_result_survives_reload_and_back_and_stands_in_the_strip(visit: Visit, url: str) -> None:
    page = visit.page
    visit.run()
    page.wait_for_selector(".ov-strip li", timeout=PATIENCE_MS)
    headline, picture = visit.status, visit.pixels()
    page.reload()
    visit.waits_for(headline)
    assert visit.pixels() == picture
    page.wait_for_function(
        "() => document.querySelector('#words textarea').value === 'cow, grass, zebra'", timeout=PATIENCE_MS
    )
    page.goto(f"{url}theme.css" if url.endswith("/") else f"{url}/theme.css")
    page.go_back()
    visit.waits_for(headline)

    page.locator("#examples button").nth(2).click()
    visit.waits_for("Cup of coffee", ".ov-timing")
    page.locator(".ov-strip li button").first.click()
    visit.waits_for(headline)
    # The result works as before: other words are scored without analysing the photo again.
    page.wait_for_function("() => ovseg.shown().of", timeout=PATIENCE_MS)
    visit.type("cow, meadow")
    page.locator("#run").click()
    visit.waits_for_other_words()

    page.locator(".ov-forget").click()
    page.locator(".ov-strip").wait_for(state="hidden")
    page.reload()
    visit.waits_for("computed beforehand", ".ov-timing")
    assert visit.complaints == []


def test_a_reload_during_a_run_comes_back_to_it(visit: Visit, new_to_all: ModelPool) -> None:
    visit.choose(EXAMPLES / "pagoda.jpg")
    visit.type("pagoda, sky")
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    visit.page.reload()
    visit.waits_for("Done in", ".ov-timing")
    assert "pagoda" in visit.legend
    assert visit.page.evaluate("() => ovseg.shown().photo_name") == "pagoda.jpg"


def test_a_server_that_goes_away_is_told_and_come_back_to(browser: Browser, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "OVSEG_MAX_SIDE_PX": "320",
    }

    def start() -> subprocess.Popen[bytes]:
        app = Path(__file__).parents[2] / "app.py"
        running = subprocess.Popen([sys.executable, str(app)], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return running
            time.sleep(0.5)
        raise AssertionError("the page does not start")

    server = start()
    visitor = visiting(browser, f"http://127.0.0.1:{port}")
    try:
        visit = next(visitor)
        visit.choose(EXAMPLES / "horses.jpg")
        visit.type("horse, sky")
        server.kill()
        server.wait()
        visit.page.locator("#run").click()
        visit.waits_for("The server cannot be reached")
        server = start()
        visit.waits_for("Done in", ".ov-timing")
        assert "horse" in visit.legend
    finally:
        next(visitor, None)
        server.kill()
        server.wait()


def test_a_link_to_words_says_that_the_photo_has_to_come_along(visit: Visit, url: str) -> None:
    visit.page.goto(f"{url}?words=cow%2C%20grass")
    visit.waits_for("Its photo has to come along")
    assert visit.page.locator(".ov-stage").get_attribute("data-state") == "empty"
    assert not visit.page.locator(".ov-legend").is_visible()
    assert visit.page.locator("#words textarea").input_value() == "cow, grass"


def test_a_link_to_a_result_shows_it_to_others(visit: Visit, phone: Visit, url: str) -> None:
    visit.run()
    visit.page.locator("#settings button").first.click()
    visit.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    visit.page.locator("#result-link").click()
    visit.page.wait_for_function("() => location.search.includes('result=')")
    phone.page.goto(visit.page.url)
    phone.waits_for(visit.status)
    assert "shared by a link" in phone.page.locator(".ov-timing").inner_text()
    phone.page.goto(f"{url}?result=nobody-has-this")
    phone.waits_for("no longer on the server")
