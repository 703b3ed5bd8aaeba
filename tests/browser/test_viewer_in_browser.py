"""The way through the page in a real browser: from a photo to a download."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from visiting import EXAMPLES, PATIENCE_MS, Visit

from ovseg_demo.output.neighbouring_colours import touching
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import load_examples
from tests.output.test_palette import LEAST_DISTANCE, VISIONS, to_lab

if TYPE_CHECKING:
    from conftest import Watched
    from playwright.sync_api import Browser

    from ovseg_demo.page.server.model_pool import ModelPool


pytestmark = pytest.mark.slow


def test_the_way_through(visit: Visit, new_to_all: ModelPool, tmp_path: Path) -> None:
    """Upload, run, hover, pin, hide a class, compare, edit words, take it away."""
    page = visit.page
    visit.run()
    assert "Done in" in page.locator(".ov-timing").inner_text()
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

    visit.type("cow, meadow, tree")
    page.locator("#words textarea").press("Enter")
    visit.waits_for_other_words()

    names = _names_in_zip(visit, tmp_path)
    assert {"overlay.png", "label_map.png", "comparison.png", "vanilla/overlay.png", "result.json"} <= names

    assert visit.complaints == [] and visit.elsewhere == []


def test_an_example_is_there_at_once_and_can_be_taken_away(
    visit: Visit, watched: Watched, tmp_path: Path
) -> None:
    begun = watched.begun
    visit.wait_for_result()
    assert "computed beforehand" in visit.page.locator(".ov-timing").inner_text()
    visit.page.locator("#examples button").nth(2).click()
    visit.waits_for("Cup of coffee", ".ov-timing")
    assert "coffee" in visit.page.locator("#words textarea").input_value()
    assert "coffee" in visit.legend and "CC0" in visit.page.locator(".ov-timing").inner_text()
    assert "comparison.json" in _names_in_zip(visit, tmp_path)
    assert watched.begun == begun
    assert visit.complaints == [] and visit.elsewhere == []


def test_what_changed_is_a_table_and_a_picture(visit: Visit) -> None:
    visit.page.locator("#examples button").nth(4).click()
    visit.waits_for("Living room", ".ov-timing")
    rows = visit.page.locator(".ov-changes tbody tr")
    told = visit.page.evaluate("() => ovseg.shown().comparison.renamed.length")
    assert told > 0
    if visit.page.locator(".ov-more").is_visible():
        visit.page.locator(".ov-more").click()
    assert rows.count() == told
    rows.first.locator("button").click()
    assert visit.page.locator(".ov-region").is_visible()
    plain = visit.pixels()
    visit.page.locator("[data-mode=difference]").click()
    named = visit.pixels()
    assert named != plain
    visit.page.locator(".ov-names").uncheck()
    assert visit.pixels() != named


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Overlay with legend (PNG)", "cow_overlay.png"),
        ("Label map (palette PNG)", "cow_label_map.png"),
        ("COCO instances (JSON, RLE)", "cow_coco.json"),
        ("GeoJSON (pixel coordinates)", "cow_regions.geojson"),
        ("YOLO segmentation (txt)", "cow_yolo.zip"),
    ],
)
def test_every_format_can_be_chosen(visit: Visit, label: str, name: str) -> None:
    visit.wait_for_result()
    visit.page.locator("#format input").click()
    visit.page.get_by_role("option", name=label).click()
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        visit.page.locator("#make").click()
    assert coming.value.suggested_filename == name
    content = Path(coming.value.path()).read_bytes()
    if name.endswith(".png"):
        assert np.asarray(Image.open(io.BytesIO(content))).size > 0
    elif name.endswith(".zip"):
        assert "yolo/data.yaml" in zipfile.ZipFile(io.BytesIO(content)).namelist()
    else:
        assert json.loads(content)


def test_coco_and_yolo_name_the_photo_as_its_visitor_does(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "Sunday walk.jpg").write_bytes((EXAMPLES / "cow.jpg").read_bytes())
    visit.choose(tmp_path / "Sunday walk.jpg")
    visit.type("cow, grass")
    visit.page.locator("#run").click()
    visit.wait_for_result()
    with zipfile.ZipFile(visit.take_away(tmp_path)) as archive:
        names = archive.namelist()
        coco = json.loads(archive.read(next(n for n in names if n.endswith("coco.json"))))
    assert [image["file_name"] for image in coco["images"]] == ["Sunday walk.jpg"]
    assert "yolo/labels/Sunday walk.txt" in names


def test_a_page_with_the_result_opens_without_a_server(
    visit: Visit, browser: Browser, tmp_path: Path
) -> None:
    visit.run(words="cow, </script><b>grass, zebra")
    visit.page.locator("#format input").click()
    visit.page.get_by_role("option", name="A page with this result").click()
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        visit.page.locator("#make").click()
    assert coming.value.suggested_filename == "cow.html"
    coming.value.save_as(tmp_path / "cow.html")
    elsewhere = browser.new_context(offline=True, viewport={"width": 1400, "height": 950})
    page = elsewhere.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto((tmp_path / "cow.html").as_uri())
    page.wait_for_selector(".ov-stage[data-state=result]", timeout=PATIENCE_MS)
    assert page.locator(".ov-status").inner_text() == visit.status
    assert page.locator(".ov-legend").inner_text() == visit.page.locator(".ov-legend").inner_text()
    page.locator(".ov-stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator(".ov-region canvas").is_visible()  # the crop that CLIP gets
    page.locator("[data-mode=split]").click()
    assert page.locator(".ov-split").is_visible()
    assert wrong == []
    elsewhere.close()


def test_names_stay_names(visit: Visit) -> None:
    visit.run(words="<img src=x onerror=window.hurt=1>, cow, ${alert(1)}, {{value}}, \u202eevil")
    assert visit.page.evaluate("() => window.hurt") is None
    # Without the thumbnails of the strip, which the browser makes.
    assert visit.page.locator("#viewer img:not([src^='data:image/jpeg'])").count() == 0
    told = visit.legend
    assert "<img src=x onerror=window.hurt=1>" in told and "${alert(1)}" in told and "{{value}}" in told
    assert visit.complaints == []


def test_a_name_keeps_its_colour_with_other_words(visit: Visit) -> None:
    visit.run(words="cow, grass, zebra")
    colour = "(node) => getComputedStyle(node).backgroundColor"
    row = visit.page.locator(".ov-legend tbody tr").filter(has_text="grass").locator(".ov-swatch")
    before = row.evaluate(colour)
    visit.type("tree, grass, cow, person")
    visit.page.locator("#run").click()
    visit.waits_for_other_words()
    assert row.evaluate(colour) == before


def test_classes_that_touch_are_apart_for_every_eye(visit: Visit) -> None:
    """In the pixels of the canvas, at any opacity: no nearer than the nearest hues of the palette, mixed."""
    page = visit.page
    visit.wait_for_result()
    for box in (".ov-names", ".ov-outlines"):
        page.locator(box).uncheck()
    for number, example in enumerate(load_examples()):
        if example.title not in page.locator(".ov-timing").inner_text():
            page.locator("#examples button").nth(number).click()
            visit.waits_for(example.title, ".ov-timing")
        ready = example_result(example)
        assert ready is not None
        result = ready.result.second
        for opacity in (30, 55, 100):
            page.locator(".ov-opacity input").fill(str(opacity))
            picture = Image.fromarray(visit.picture().astype(np.uint8))
            seen = np.asarray(picture.resize(result.size, Image.Resampling.NEAREST), dtype=np.float64)
            for pair in touching([result]):
                means = np.stack([seen[result.label_map == place + 1].mean(axis=0) for place in pair])
                for vision, matrix in VISIONS.items():
                    apart = np.linalg.norm(np.subtract(*to_lab(means, matrix)))
                    assert apart >= min(LEAST_DISTANCE.values()) * opacity / 100, (example.title, vision)


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
    assert page.locator(".ov-walked").inner_text().startswith("Region #")
    page.keyboard.press("Enter")
    assert page.locator(".ov-region").is_visible()
    page.keyboard.press(" ")
    assert page.locator(".ov-legend tbody input:not(:checked)").count() == 1
    page.keyboard.press("c")
    assert page.locator("[data-mode=vanilla]").get_attribute("aria-checked") == "true"
    page.keyboard.press("Escape")
    assert not page.locator(".ov-region").is_visible()


def test_everything_can_be_reached_by_tab(visit: Visit) -> None:
    visit.wait_for_result()
    wanted = {"chips", "distractors", "what-else", "run", "examples", "settings", "viewer", "format", "make"}
    seen: set[str] = set()
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        inside: list[str] = visit.page.evaluate(
            """() => {
              const ids = [];
              for (let node = document.activeElement; node; node = node.parentElement) ids.push(node.id);
              return ids;
            }"""
        )
        seen |= wanted & set(inside)
    assert seen == wanted


def test_a_phone_needs_no_sideways_scrolling(phone: Visit) -> None:
    phone.run()
    assert phone.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    box = phone.page.locator(".ov-canvas").bounding_box()
    assert box is not None and box["width"] > 300
    places = ("#photo", "#chips", "#run", ".ov-stage", ".ov-legend", "#settings")
    order = [phone.page.locator(place).bounding_box()["y"] for place in places]  # type: ignore[index]
    assert order == sorted(order)
    phone.page.locator("[data-mode=split]").tap()
    assert phone.page.locator(".ov-split").is_visible()
    phone.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_dark_is_dark(at_night: Visit) -> None:
    def brightness(selector: str, what: str) -> float:
        told: str = at_night.page.evaluate(
            "([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what]
        )
        return sum(map(float, re.findall(r"[\d.]+", told)[:3]))

    assert brightness("body", "backgroundColor") < 150
    assert brightness(".ov-status", "color") > 500


def _names_in_zip(visit: Visit, folder: Path) -> set[str]:
    with zipfile.ZipFile(visit.take_away(folder)) as archive:
        return set(archive.namelist())


def _over(visit: Visit, name: str) -> None:
    """Move the pointer over the picture until the tip shows the name."""
    box = visit.page.locator(".ov-canvas").bounding_box()
    assert box is not None
    for y in (0.5, 0.4, 0.6, 0.3, 0.7):
        for x in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
            visit.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if name in visit.page.locator(".ov-tip").inner_text():
                return
    raise AssertionError(f"{name} is nowhere under the pointer")
