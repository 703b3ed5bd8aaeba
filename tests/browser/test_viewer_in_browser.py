"""What a visitor does, done in a real browser."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from visiting import EXAMPLES, PATIENCE_MS, Visit

pytestmark = pytest.mark.slow


def test_the_way_through(visit: Visit, tmp_path: Path) -> None:
    """Upload, run, hover, pin, hide a class, compare, edit words, take it away."""
    page = visit.page
    visit.run()
    assert "Done in" in visit.status
    legend = page.locator(".ov-legend tbody tr")
    assert "cow" in page.locator(".ov-legend").inner_text()

    _over(visit, "cow")
    assert "cow" in page.locator(".ov-tip").inner_text()
    assert "adapted" in page.locator(".ov-tip").inner_text()

    page.mouse.down()
    page.mouse.up()
    card = page.locator(".ov-region")
    assert card.locator("canvas").is_visible()
    assert card.locator(".ov-top").count() == 2
    assert re.search(r"Region #\d+: cow", card.inner_text())

    coloured = visit.pixels()
    legend.filter(has_text="cow").locator("input").uncheck()
    assert visit.pixels() != coloured
    legend.filter(has_text="cow").locator("input").check()

    page.locator("[data-mode=split]").click()
    handle = page.locator(".ov-split")
    assert handle.is_visible()
    before = visit.pixels()
    handle.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "80"
    page.locator("[data-mode=difference]").click()
    assert visit.pixels() != before

    page.locator("#words textarea").fill("cow, meadow, tree")
    page.locator("#words textarea").press("Enter")
    visit.waits_for_status("Only the words were scored again")

    with page.expect_download(timeout=PATIENCE_MS) as coming:
        page.locator("#make").click()
    coming.value.save_as(tmp_path / "result.zip")
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        assert {"overlay.png", "label_map.png", "comparison.png", "vanilla/overlay.png"} <= set(
            archive.namelist()
        )

    assert visit.complaints == [] and visit.elsewhere == []


def test_names_stay_names(visit: Visit) -> None:
    visit.run(words="<img src=x onerror=window.hurt=1>, cow, ${alert(1)}, {{value}}, \u202eevil")
    assert visit.page.evaluate("() => window.hurt") is None
    assert visit.page.locator("#viewer img").count() == 0
    told = visit.page.locator(".ov-facts").inner_text()
    assert "<img src=x onerror=window.hurt=1>" in told and "${alert(1)}" in told and "{{value}}" in told
    assert visit.complaints == []


def test_an_example_is_one_click(visit: Visit) -> None:
    visit.page.locator("#examples button").nth(2).click()
    visit.page.wait_for_function("() => document.querySelector('#words textarea').value.length > 3")
    visit.page.locator("#run").click()
    visit.wait_for_result()
    assert visit.page.locator(".ov-facts").inner_text()


def test_errors_are_sentences_and_lose_nothing(visit: Visit, tmp_path: Path) -> None:
    visit.page.locator("#run").click()
    visit.waits_for_status("There is no photo yet")
    visit.run()
    rows = visit.page.locator(".ov-legend tbody tr").count()
    visit.page.locator("#words textarea").fill(" , ")
    visit.page.locator("#run").click()
    visit.waits_for_status("There is no name")
    assert visit.page.locator(".ov-legend tbody tr").count() == rows


def test_stop_stops_and_run_works_again(visit: Visit) -> None:
    visit.page.locator("#photo input[type=file]").first.set_input_files(EXAMPLES / "street.jpg")
    visit.page.locator("#photo img").wait_for()
    visit.page.locator("#words textarea").fill("car, building")
    visit.page.locator("#run").click()
    visit.page.locator("#stop").click(timeout=PATIENCE_MS)
    visit.waits_for_status("Stopped")
    visit.page.locator("#run").click()
    visit.wait_for_result()


def test_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.page
    visit.run()
    stage = page.locator(".ov-stage")
    stage.focus()
    plain = visit.pixels()
    page.keyboard.press("]")
    assert page.locator(".ov-opacity input").input_value() == "65"
    assert visit.pixels() != plain
    page.keyboard.press("ArrowRight")
    assert visit.status.startswith("Region #")
    page.keyboard.press("Enter")
    assert page.locator(".ov-region").is_visible()
    page.keyboard.press(" ")
    assert page.locator(".ov-legend tbody input:not(:checked)").count() == 1
    page.keyboard.press("c")
    assert page.locator("[data-mode=vanilla]").get_attribute("aria-checked") == "true"
    page.keyboard.press("Escape")
    assert not page.locator(".ov-region").is_visible()


def test_a_phone_needs_no_sideways_scrolling(phone: Visit) -> None:
    phone.run()
    assert phone.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    box = phone.page.locator(".ov-canvas").bounding_box()
    assert box is not None and box["width"] > 300
    order = [
        phone.page.locator(s).bounding_box()["y"]
        for s in ("#photo", "#words", "#run", ".ov-stage", ".ov-legend")
    ]
    assert order == sorted(order)
    phone.page.locator("[data-mode=split]").tap()
    assert phone.page.locator(".ov-split").is_visible()


def test_dark_is_dark(at_night: Visit) -> None:
    def brightness(selector: str, what: str) -> float:
        told: str = at_night.page.evaluate(
            "([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what]
        )
        return sum(map(float, re.findall(r"[\d.]+", told)[:3]))

    assert brightness("body", "backgroundColor") < 150
    assert brightness(".ov-status", "color") > 500


def test_two_visitors_never_see_each_others_results(visit: Visit, phone: Visit) -> None:
    visit.run("cow.jpg", "cow, grass")
    phone.run("coffee.jpg", "cup, table")
    for one, theirs in ((visit, "cup"), (phone, "cow")):
        told = one.page.locator(".ov-facts").inner_text()
        assert theirs not in told
    assert visit.pixels() != phone.pixels()


def test_a_link_brings_words_and_settings_back(visit: Visit, url: str) -> None:
    visit.page.locator("#words textarea").fill("cow, grass & <clover>")
    visit.page.locator("#settings button").first.click()
    visit.page.locator("#link").click()
    visit.page.wait_for_function("() => location.search.includes('words=')")
    visit.page.reload()
    visit.page.wait_for_function(
        "() => document.querySelector('#words textarea')?.value === 'cow, grass & <clover>'",
        timeout=PATIENCE_MS,
    )


def _over(visit: Visit, name: str) -> None:
    """Moves the pointer over the picture until the tip shows the name."""
    box = visit.page.locator(".ov-canvas").bounding_box()
    assert box is not None
    for y in (0.5, 0.4, 0.6, 0.3, 0.7):
        for x in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
            visit.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if name in visit.page.locator(".ov-tip").inner_text():
                return
    raise AssertionError(f"{name} is nowhere under the pointer")
