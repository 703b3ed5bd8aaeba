"""Regions added, renamed, removed, merged, cut and drawn by a visitor, in a real browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_picture import BARE_SPOT
from visiting import PATIENCE_MS, Visit

from ovseg_demo.output.mask_formats import decode_rle

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow


class Editing:
    """A visitor with the tools open on a fresh result."""

    def __init__(self, visit: Visit, photo: str = "cow.jpg", words: str = "cow, grass") -> None:
        self.visit, self.page = visit, visit.page
        visit.run(photo, words)
        self.page.locator(".ed-start").click()

    @classmethod
    def of(cls, visit: Visit) -> Editing:
        """A visitor whose result is there already; no tool is opened."""
        editing = cls.__new__(cls)
        editing.visit, editing.page = visit, visit.page
        return editing

    def tool(self, name: str) -> None:
        self.page.locator(f"[data-tool={name}]").click()

    def act(self, name: str) -> None:
        self.page.locator(".ed-bar").get_by_role("button", name=name, exact=True).click()

    def press(self, x: float, y: float, **how: Any) -> None:
        """Press at a place of the picture, in shares of its sides."""
        box = self.page.locator(".ov-canvas").bounding_box()
        assert box is not None
        place = {"x": x * box["width"], "y": y * box["height"]}
        self.page.locator(".ov-canvas").click(position=place, **how)  # type: ignore[arg-type]

    def drag(self, *places: tuple[float, float]) -> None:
        box = self.page.locator(".ov-canvas").bounding_box()
        assert box is not None
        for number, (x, y) in enumerate(places):
            self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if number == 0:
                self.page.mouse.down()
        self.page.mouse.up()

    def waits_for_names(self) -> None:
        self.page.wait_for_selector(".ed-name:not([hidden]) .ed-best", timeout=PATIENCE_MS)

    def names(self, name: str) -> None:
        """Type a name into the panel that asks for it."""
        self.page.locator(".ed-name input").fill(name)
        self.page.locator(".ed-name input").press("Enter")
        self.page.locator(".ed-name").wait_for(state="hidden")

    def at(self, x: float, y: float) -> tuple[str, bool]:
        """The name at a place, and whether a visitor gave it."""
        found = self.page.evaluate(
            """([x, y]) => {
              const shown = ovseg.shown(), arm = shown.arms.adapted;
              const i = Math.floor(y * shown.height) * shown.width + Math.floor(x * shown.width);
              const index = arm.labels[i], fact = arm.byId.get(arm.regions[i]);
              return [index ? arm.classes[index - 1].name : "", Boolean(fact?.corrected)];
            }""",
            [x, y],
        )
        return str(found[0]), bool(found[1])

    @property
    def count(self) -> int:
        """The number of corrections."""
        text = self.page.locator(".ed-state").inner_text()
        return int(text.split()[0]) if text else 0

    def saved(self) -> None:
        self.visit.waits_for("saved in this browser", ".ed-state")


def test_a_press_adds_a_region_with_a_name(visit: Visit) -> None:
    editing = Editing(visit, words="grass")
    page = visit.page
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    assert page.locator(".ed-best").count() == 5
    first = page.locator(".ed-best .ov-name").first.inner_text()
    page.keyboard.press("Enter")
    page.locator(".ed-name").wait_for(state="hidden")
    assert editing.at(0.5, 0.5) == (first, True)
    assert first in visit.legend and "corrected by you" in visit.legend
    # A new word is among the chips.
    assert first in page.locator(".ch-list").inner_text()
    editing.saved()
    assert visit.complaints == [] and visit.elsewhere == []


def test_the_pointer_shows_the_mask_that_a_press_would_give(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    place = (box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] - 30)
    before = visit.picture()
    with page.expect_response("**/ovseg/preview") as seen:
        page.mouse.move(*place)
    page.wait_for_selector(".ov-stage[data-preview=true]")
    during = visit.picture()
    counts = seen.value.json()["counts"]

    # What has changed in the picture is the mask.
    height, width = page.evaluate("() => [ovseg.shown().height, ovseg.shown().width]")
    mask = np.asarray(decode_rle(counts, (height, width)))
    y, x = np.indices(during.shape[:2])
    large = mask[y * height // during.shape[0], x * width // during.shape[1]]
    changed = (np.abs(during - before) > 8).any(axis=2)
    assert (changed & large).sum() > 0.9 * large.sum() and (changed & ~large).mean() < 0.03

    with page.expect_response("**/ovseg/regions") as pressed:
        page.mouse.click(*place)
    editing.waits_for_names()
    assert pressed.value.json()["masks"][0]["counts"] == counts
    page.keyboard.press("Escape")

    # Outside the picture, and with another tool, nothing is shown.
    page.mouse.move(place[0] + 5, place[1])
    page.wait_for_selector(".ov-stage[data-preview=true]")
    page.mouse.move(place[0], box["y"] - 30)
    page.wait_for_selector(".ov-stage[data-preview=false]")
    assert np.array_equal(visit.picture(), before)
    assert visit.complaints == [] and visit.elsewhere == []


def test_no_preview_where_the_photo_is_not_kept(visit: Visit, new_to_all: ModelPool) -> None:
    editing = Editing(visit)
    page = visit.page
    segmenter = new_to_all.get(new_to_all.default)
    segmenter.photos.clear()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    with page.expect_response("**/ovseg/preview") as seen:
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    assert seen.value.json() == {"kept": False, "counts": None}
    assert len(segmenter.photos) == 0
    for share in (0.4, 0.45, 0.55):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + share * box["height"])
        page.wait_for_timeout(300)
    assert sum(url.endswith("/ovseg/preview") for url in asked) == 1
    assert page.locator(".ov-stage[data-preview=true]").count() == 0

    # A press analyses the photo; from then on it is kept.
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    page.keyboard.press("Escape")
    page.mouse.move(box["x"] + 0.52 * box["width"], box["y"] + 0.52 * box["height"])
    page.wait_for_selector(".ov-stage[data-preview=true]")
    assert visit.complaints == []


def test_tab_shows_another_mask_and_escape_drops(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    assert "Mask 1 of" in page.locator(".ed-name h2").inner_text()
    before = visit.pixels()
    page.keyboard.press("Tab")
    visit.waits_for("Mask 2 of", ".ed-name h2")
    assert visit.pixels() != before
    page.keyboard.press("Escape")
    assert not page.locator(".ed-name").is_visible()
    assert editing.count == 0


def test_a_box_and_what_does_not_belong(visit: Visit) -> None:
    editing = Editing(visit)
    editing.drag((0.2, 0.2), (0.5, 0.5), (0.8, 0.85))
    editing.waits_for_names()
    before = visit.pixels()
    editing.press(0.9, 0.1, modifiers=["Alt"])
    visit.page.wait_for_function("() => document.querySelector('.ov-stage').dataset.asking === 'false'")
    editing.waits_for_names()
    assert visit.pixels() != before
    editing.names("my animal")
    assert "my animal" in visit.legend


def test_the_time_from_press_to_name(visit: Visit) -> None:
    editing = Editing(visit)
    took = []
    for number in range(9):
        editing.press(0.3 + 0.05 * number, 0.5)
        editing.waits_for_names()
        visit.page.wait_for_function("() => document.querySelector('.ov-stage').dataset.asking === 'false'")
        took.append(int(str(visit.page.locator(".ov-stage").get_attribute("data-took"))))
        visit.page.keyboard.press("Escape")
    print("ms from press to name:", json.dumps(took), "median", sorted(took)[4])
    assert sorted(took)[4] < 3000


def test_rename_remove_undo_and_redo(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    editing.tool("select")
    editing.press(0.5, 0.5)
    assert editing.at(0.5, 0.5) == ("cow", False)
    page.keyboard.press("r")
    editing.names("Bessie")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    page.keyboard.press("Control+z")
    assert editing.at(0.5, 0.5) == ("cow", False)
    page.keyboard.press("Control+Shift+Z")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    editing.press(0.5, 0.5)
    editing.act("Remove")
    assert editing.at(0.5, 0.5) == ("", True)
    editing.act("Undo")
    editing.act("Undo")
    assert editing.at(0.5, 0.5) == ("cow", False)
    assert editing.count == 0
    editing.act("Redo")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    assert visit.complaints == []


def test_merge_cut_and_the_brush(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    editing.tool("select")
    editing.press(0.5, 0.5)
    editing.act("Merge")
    editing.press(0.3, 0.93)
    visit.waits_for("2 regions are one now", ".ed-hint")
    assert editing.at(0.3, 0.93) == editing.at(0.5, 0.5) == ("cow", True)

    editing.tool("cut")
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    editing.names("rump")
    assert editing.at(0.5, 0.5) == ("rump", True)
    assert editing.at(0.3, 0.93) == ("cow", True)

    editing.tool("brush")
    assert page.locator(".ed-size").is_visible()
    editing.tool("select")
    editing.press(0.5, 0.5)
    editing.tool("brush")
    editing.drag((0.5, 0.5), (0.5, 0.1))
    assert editing.at(0.5, 0.1) == ("rump", True)
    editing.tool("erase")
    editing.drag((0.5, 0.1), (0.52, 0.1))
    assert editing.at(0.5, 0.1) != ("rump", True)
    before = editing.count
    editing.act("Undo")
    assert editing.at(0.5, 0.1) == ("rump", True)
    assert before >= 1


def test_what_cannot_be_done_is_one_sentence(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    editing.press(0.5, 0.5, modifiers=["Alt"])
    visit.waits_for("Press on the thing first", ".ed-hint")
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    page.locator(".ed-name input").fill("<b>cow</b>")
    page.keyboard.press("Enter")
    visit.waits_for("holds markup", ".ed-wrong")
    page.keyboard.press("Escape")
    editing.tool("select")
    editing.press(0.5, 0.5)
    editing.tool("brush")
    editing.drag((0.5, 0.5), (0.51, 0.5))
    visit.waits_for("Nothing has changed", ".ed-hint")
    assert editing.count == 0


def test_presses_boxes_and_strokes_over_nothing(visit: Visit) -> None:
    page = visit.page
    for example in page.locator("#examples button").all():
        example.click()
        page.wait_for_timeout(1500)
        if spot := page.evaluate(BARE_SPOT):
            break
    assert spot
    page.locator(".ed-start").click()
    editing = Editing.of(visit)
    # Between four pixels.
    width, height = page.evaluate("() => [ovseg.shown().width, ovseg.shown().height]")
    x, y = (int(spot[0] * width) + 0.5) / width, (int(spot[1] * height) + 0.5) / height
    for tool, told in (
        ("erase", "nothing here to erase"),
        ("cut", "no region here to cut"),
        ("select", "no region here; the tool Add makes one"),
    ):
        editing.tool(tool)
        editing.press(x, y)
        visit.waits_for(told, ".ed-hint")
    editing.tool("add")
    editing.drag((0.3, 0.5), (0.5, 0.5))
    visit.waits_for("has no area", ".ed-hint")
    assert editing.count == 0
    assert page.locator(".ed-bar").get_by_role("button", name="Undo").is_disabled()

    # The thinnest brush draws, too, on a picture that is magnified.
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.keyboard.down("Control")
    for _ in range(6):
        page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    assert page.locator(".ov-stage").get_attribute("data-zoomed") == "true"
    editing.tool("brush")
    page.locator(".ed-size input").fill("2")
    editing.press(x, y)
    page.locator(".ed-name").wait_for()
    editing.names("speck")
    assert editing.at(x, y) == ("speck", True)
    editing.act("Undo")
    assert editing.at(x, y) == ("", False)
    assert visit.complaints == []


def test_corrections_survive_a_reload_and_other_words(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    editing.tool("select")
    editing.press(0.5, 0.5)
    page.keyboard.press("r")
    editing.names("Bessie")
    editing.saved()
    visit.type("grass, sky")
    page.locator("#run").click()
    visit.waits_for_other_words()
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    page.reload()
    visit.waits_for("1 correction, saved", ".ed-state")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    page.locator(".ed-start").click()
    editing.act("Undo")
    assert editing.at(0.5, 0.5) != ("Bessie", True)


def test_by_keys_alone(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    page.locator(".ov-stage").focus()
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    editing.waits_for_names()
    page.keyboard.press("Enter")
    page.locator(".ed-name").wait_for(state="hidden")
    assert editing.count == 1
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    visit.waits_for("Selected: region", ".ov-walked")
    page.keyboard.press("Delete")
    assert editing.count >= 1
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert editing.count == 0


def test_by_touch(phone: Visit) -> None:
    editing = Editing(phone)
    page = phone.page
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    page.locator(".ov-canvas").tap(position={"x": box["width"] / 2, "y": box["height"] / 2})
    editing.waits_for_names()
    page.locator(".ed-best").first.tap()
    page.locator(".ed-name").wait_for(state="hidden")
    assert editing.at(0.5, 0.5)[1]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_one_finger_draws_and_two_zoom(phone: Visit) -> None:
    editing = Editing(phone)
    page = phone.page
    editing.tool("select")
    page.locator(".ov-stage").scroll_into_view_if_needed()
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    phone.waits_for("cow:", ".ed-hint")
    editing.tool("brush")
    box = page.locator(".ov-canvas").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": number}
            for number, (x, y) in enumerate(places)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.5, 0.5))
    for height in (0.4, 0.3, 0.2, 0.1):
        touch("touchMove", (0.5, height))
    touch("touchEnd")
    assert editing.at(0.5, 0.1) == ("cow", True)
    assert page.locator(".ov-stage").get_attribute("data-zoomed") != "true"
    before = editing.count

    # A second finger drops the stroke that the first one began.
    touch("touchStart", (0.3, 0.1))
    touch("touchMove", (0.2, 0.1))
    touch("touchStart", (0.2, 0.1), (0.6, 0.3))
    for apart in (0.1, 0.2, 0.3):
        touch("touchMove", (0.2 - apart / 2, 0.1), (0.6 + apart / 2, 0.3 + apart))
    touch("touchEnd")
    assert page.locator(".ov-stage").get_attribute("data-zoomed") == "true"
    assert editing.count == before and editing.at(0.2, 0.1) != ("cow", True)
    editing.act("Undo")
    assert editing.at(0.5, 0.1) != ("cow", True)
    assert phone.complaints == []


def test_without_the_server_nothing_is_lost(visit: Visit) -> None:
    editing = Editing(visit)
    page = visit.page
    page.route("**/ovseg/**", lambda route: route.abort())
    editing.press(0.5, 0.5)
    visit.waits_for("The server cannot be reached", ".ed-hint")
    editing.tool("select")
    editing.press(0.5, 0.5)
    page.keyboard.press("r")
    editing.names("Bessie")
    editing.saved()
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    assert "0 examples" in page.locator(".mem summary").inner_text()
    page.unroute("**/ovseg/**")
    # Earlier corrections are stored together with the next one.
    editing.act("Undo")
    editing.act("Redo")
    visit.waits_for("Your memory: 1 example", ".mem summary")


def test_a_photo_that_the_server_has_deleted_is_sent_again(visit: Visit) -> None:
    editing = Editing(visit)
    asked: list[str] = []

    def gone_at_first(route: Route) -> None:
        asked.append(str(json.loads(route.request.post_data or "{}").get("photo")))
        if len(asked) == 1:
            route.fulfill(status=410, json={"detail": "The photo is no longer on the server."})
        else:
            route.continue_()

    visit.page.route("**/ovseg/regions", gone_at_first)
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    assert len(asked) == 2 and all(asked)


def test_more_like_this_gives_one_name_to_all(visit: Visit) -> None:
    editing = Editing(visit, words="grass")
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    editing.names("cow")
    editing.act("More like this")
    visit.page.wait_for_function(
        "() => /outlined|Nothing else/.test(document.querySelector('.ed-hint').textContent)",
        timeout=PATIENCE_MS,
    )
    if visit.page.locator(".ed-name").is_visible():
        before = editing.count
        visit.page.locator(".ed-best").first.click()
        assert editing.count >= before
    assert visit.complaints == []


def test_an_example_is_corrected_without_a_run(visit: Visit) -> None:
    page = visit.page
    visit.wait_for_result()
    page.locator(".ed-start").click()
    editing = Editing.of(visit)
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    editing.names("Bessie")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    editing.saved()
    # The photo is among the last ones, and its corrections come back with it.
    page.reload()
    visit.waits_for("1 correction, saved", ".ed-state")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    page.wait_for_function(
        "() => document.querySelector('#words textarea').value.includes('Bessie')", timeout=PATIENCE_MS
    )
    page.locator("#run").click()
    visit.waits_for("Done in", ".ov-timing")
    assert editing.at(0.5, 0.5) == ("Bessie", True)
    assert visit.complaints == []
