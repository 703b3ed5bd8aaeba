"""Explanations of a result in a real browser: importance, map of words and regions, accuracy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_accessibility import findings
from test_correcting import Editing
from visiting import EXAMPLES, PATIENCE_MS, Visit

from ovseg_demo.output.export import export
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import load_examples

pytestmark = pytest.mark.slow

COW = next(one for one in load_examples() if one.photo.stem == "cow")


@pytest.fixture
def label_map(tmp_path: Path) -> list[Path]:
    """The label map of the adapted arm of the cow, and its names, as the page exports them."""
    ready = example_result(COW)
    assert ready is not None
    files = export(ready.result.second, ("label-map", "classes"))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in files]


def show_cow(visit: Visit) -> None:
    visit.wait_for_result()
    if COW.title not in visit.page.locator(".ov-timing").inner_text():
        visit.page.locator("#examples button").nth(load_examples().index(COW)).click()
        visit.waits_for(COW.title, ".ov-timing")


def pin(visit: Visit, number: int = 0) -> str:
    """Pin the region of a row of the table of changes; returns its name in the table."""
    button = visit.page.locator(".ov-changes tbody button").nth(number)
    button.click()
    visit.page.locator(".ov-region").wait_for()
    return button.inner_text()


def colourfulness(visit: Visit) -> list[float]:
    """Largest distance of each map from grey, 0..255."""
    found: list[float] = visit.page.evaluate(
        """() => [...document.querySelectorAll(".ov-why-maps canvas")].map((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let most = 0;
          for (let i = 0; i < data.length; i += 4) most = Math.max(most, Math.abs(data[i] - data[i + 2]));
          return most;
        })"""
    )
    return found


def test_what_mattered_in_a_crop(visit: Visit) -> None:
    page = visit.page
    show_cow(visit)
    pin(visit)
    page.locator(".ov-why summary").click()
    page.locator(".ov-why-maps canvas").nth(1).wait_for(timeout=PATIENCE_MS)
    first = page.locator(".ov-why-maps").inner_text()
    assert re.search(r"plain: .+ (leads|trails) .+ by [\d.]+", first), first
    assert re.search(r"adapted: .+ (leads|trails) .+ by [\d.]+", first), first
    assert min(colourfulness(visit)) > 60  # orange or purple at full strength somewhere in one of them
    scale = page.locator(".ov-scale").inner_text()
    assert "against it" in scale and "for it" in scale
    for picture in page.locator(".ov-why-maps canvas").all():
        assert "speaks most for the word" in (picture.get_attribute("aria-label") or "")

    # Another word, by keyboard.
    words = page.locator(".ov-why select")
    assert words.locator("option").count() == len(page.evaluate("() => ovseg.shown().arms.adapted.classes"))
    words.focus()
    page.keyboard.press("ArrowDown")
    chosen = page.evaluate("() => document.querySelector('.ov-why select').selectedOptions[0].textContent")
    visit.waits_for(f"{chosen} ", ".ov-why-maps")
    assert page.locator(".ov-why-maps").inner_text() != first
    assert findings(visit) == []

    # The panel stays open for the next region.
    pin(visit, 1)
    page.locator(".ov-why-maps canvas").nth(1).wait_for(timeout=PATIENCE_MS)
    assert visit.complaints == [] and visit.elsewhere == []


def test_where_words_and_regions_lie(visit: Visit) -> None:
    page = visit.page
    show_cow(visit)
    page.locator(".ov-space summary").first.click()
    page.locator(".ov-space-map").wait_for(timeout=PATIENCE_MS)
    regions = page.evaluate("() => ovseg.shown().arms.adapted.facts.length")
    assert page.locator(".ov-point").count() == page.locator(".ov-point line").count() == regions
    assert page.locator(".ov-word text").all_text_contents() == [
        name for name in page.evaluate("() => ovseg.shown().arms.adapted.classes.map((c) => c.name)")
    ]
    told = page.locator(".ov-space").inner_text()
    assert "principal ones" in told and "% of what sets regions apart" in told

    # From the map to the picture: one stop for the tab key, arrows from region to region.
    assert page.locator(".ov-point[tabindex='0']").count() == 1
    page.locator(".ov-point[tabindex='0']").focus()
    one = visit.pixels()
    page.keyboard.press("ArrowRight")
    other = visit.pixels()
    assert one != other
    assert page.locator(".ov-space-told").inner_text().startswith("Region #")
    page.keyboard.press("Enter")
    assert page.locator(".ov-region").is_visible()
    page.locator(".ov-region header button").click()

    # And from the picture to the map.
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    page.locator(".ov-canvas").scroll_into_view_if_needed()
    page.locator(".ov-canvas").hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert page.locator(".ov-point.ov-at").count() == 1

    page.locator(".ov-space-table summary").click()
    assert page.locator(".ov-space-table tbody").first.locator("tr").count() == regions
    assert findings(visit) == []
    # Another photo has another map.
    page.locator("#examples button").nth(2).click()
    page.wait_for_function("() => !document.querySelector('.ov-space-map')")
    assert visit.complaints == [] and visit.elsewhere == []


def test_against_truth(visit: Visit, label_map: list[Path], tmp_path: Path) -> None:
    page = visit.page
    show_cow(visit)
    page.locator(".ov-truth summary").click()
    page.locator(".ov-truth input").set_input_files(label_map)
    page.locator(".ov-truth-told").wait_for(timeout=PATIENCE_MS)
    told = page.locator(".ov-truth-told").inner_text()
    assert "adapted 100.0 %" in told and "plain 100.0 %" not in told and "mIoU" in told
    assert "cow" in page.locator(".ov-truth table").first.inner_text()
    table = page.locator(".ov-truth caption", has_text="Confusion")
    assert "adapted" in table.inner_text()
    page.locator(".ov-truth select").select_option(label="plain")
    assert "plain" in table.inner_text()
    assert page.locator(".ov-reliability polyline").count() == 4
    assert page.locator(".ov-truth caption", has_text="by confidence").count() == 1
    assert findings(visit) == []

    Image.fromarray(np.ones((40, 50), np.uint8)).save(tmp_path / "other.png")
    page.locator(".ov-truth input").set_input_files(tmp_path / "other.png")
    visit.waits_for("The label map is 50 x 40 pixels and the photo 1024 x 768", ".ov-truth-found")
    assert page.locator(".ov-truth table").count() == 0
    assert visit.complaints == [] and visit.elsewhere == []


def test_against_what_a_visitor_corrected(visit: Visit) -> None:
    """The cow is accepted, a part of the grass is drawn as cow: only these two count, in both arms."""
    page = visit.page
    show_cow(visit)
    page.locator(".ov-truth summary").click()
    own = page.get_by_role("button", name="Use my corrections as truth")
    assert own.is_disabled()
    page.locator(".ed-start").click()
    editing = Editing.of(visit)
    editing.tool("select")
    editing.press(0.5, 0.5)
    editing.act("Accept")
    assert editing.at(0.5, 0.5) == ("cow", True) and editing.count == 1
    own.click()
    page.locator(".ov-truth-told").wait_for(timeout=PATIENCE_MS)
    told = page.locator(".ov-truth-told").inner_text()
    assert "adapted 100.0 %" in told
    share = page.evaluate(
        """() => {
          const { regions, byId } = ovseg.shown().arms.adapted;
          return regions.filter((id) => byId.get(id)?.corrected).length / regions.length;
        }"""
    )
    found = page.locator(".ov-truth-found")
    assert f"what you corrected or accepted, {round(100 * share)} % of the photo" in found.inner_text()

    # The figures follow: what was grass is cow to the visitor, so the result was wrong there.
    editing.tool("brush")
    editing.drag((0.2, 0.95), (0.8, 0.95))
    page.wait_for_function(
        "(told) => document.querySelector('.ov-truth-told').textContent !== told",
        arg=told,
        timeout=PATIENCE_MS,
    )
    assert "adapted 100.0 %" not in page.locator(".ov-truth-told").inner_text().partition("mIoU")[0]
    confusion = found.locator("table", has=page.locator("caption", has_text="Confusion"))
    assert confusion.locator("tbody tr").count() == 1 and "grass" in confusion.inner_text()
    assert page.locator(".ov-reliability polyline").count() == 4
    assert findings(visit) == []

    # Without corrections there is no truth to compare with.
    while editing.count:
        editing.act("Undo")
    assert own.is_disabled()
    visit.waits_for("No corrected region has a name", ".ov-truth-found")
    assert visit.complaints == [] and visit.elsewhere == []


def test_a_label_map_is_dropped_and_the_photo_stays(visit: Visit, label_map: list[Path]) -> None:
    page = visit.page
    show_cow(visit)
    page.locator(".ov-truth summary").click()
    dropped = page.evaluate_handle(
        """(files) => {
          const carried = new DataTransfer();
          for (const [name, content] of files) carried.items.add(new File([new Uint8Array(content)], name));
          return carried;
        }""",
        [[path.name, list(path.read_bytes())] for path in label_map],
    )
    for kind in ("dragover", "drop"):
        page.dispatch_event(".ov-truth-drop", kind, {"dataTransfer": dropped})
    page.locator(".ov-truth-told").wait_for(timeout=PATIENCE_MS)
    assert page.locator(".ov-stage[data-state=result]").is_visible()
    assert COW.title in page.locator(".ov-timing").inner_text()


def test_all_of_it_on_a_phone(phone: Visit, label_map: list[Path]) -> None:
    page = phone.page
    show_cow(phone)
    page.locator(".ov-space summary").first.tap()
    page.locator(".ov-space-map").wait_for(timeout=PATIENCE_MS)
    page.locator(".ov-truth summary").tap()
    page.locator(".ov-truth input").set_input_files(label_map)
    page.locator(".ov-truth-told").wait_for(timeout=PATIENCE_MS)
    page.locator(".ov-changes tbody button").first.tap()
    page.locator(".ov-why summary").tap()
    page.locator(".ov-why-maps canvas").nth(1).wait_for(timeout=PATIENCE_MS)
    boxes = [one.bounding_box() for one in page.locator(".ov-why-maps canvas").all()]
    # Side by side.
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] > boxes[0]["x"] + 100
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    assert findings(phone) == []


def test_a_page_without_a_result_asks_nothing(visit: Visit) -> None:
    visit.wait_for_result()
    visit.choose(EXAMPLES / "coffee.jpg")
    assert not visit.page.locator(".ov-study").is_visible()


@pytest.mark.parametrize("where", ["visit", "at_night", "phone", "phone_at_night"])
def test_axe_finds_nothing_with_every_panel_open(where: str, request: pytest.FixtureRequest) -> None:
    one: Visit = request.getfixturevalue(where)
    page = one.page
    show_cow(one)
    pin(one)
    page.locator(".ov-why summary").click()
    page.locator(".ov-why-maps canvas").nth(1).wait_for(timeout=PATIENCE_MS)
    assert findings(one) == []
    page.locator(".ov-region header button").click()

    page.locator(".ov-space summary").first.click()
    page.locator(".ov-space-map").wait_for(timeout=PATIENCE_MS)
    page.locator(".ov-space-table summary").click()
    page.locator(".ov-truth summary").click()
    page.locator(".ed-start").click()
    editing = Editing.of(one)
    editing.tool("select")
    editing.press(0.5, 0.5)
    editing.act("Accept")
    page.get_by_role("button", name="Use my corrections as truth").click()
    page.locator(".ov-truth-told").wait_for(timeout=PATIENCE_MS)
    one.waits_for("Your memory: 1 example", ".mem summary")
    page.locator(".mem summary").click()
    editing.tool("brush")
    assert findings(one) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    # What the file field says can be read: axe does not look inside it.
    field = page.locator(".ov-truth-drop input")
    assert field.evaluate("(node) => getComputedStyle(node).backgroundColor") == "rgba(0, 0, 0, 0)"
