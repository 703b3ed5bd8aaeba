"""The picture: zoom, pan, full screen, photos by drop and paste, presses outside all regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from visiting import EXAMPLES, PATIENCE_MS, Visit

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = pytest.mark.slow


BARE_SPOT = """() => {
  const { width, height, bits, bytesPerMask } = ovseg.shown();
  for (let i = 0; i < width * height; i += 7) {
    let held = false;
    for (let at = i >> 3; at < bits.length; at += bytesPerMask) held ||= (bits[at] >> (7 - (i & 7))) & 1;
    if (!held) return [((i % width) + 0.5) / width, (Math.floor(i / width) + 0.5) / height];
  }
  return null;
}"""
"""A pixel of the picture, in shares of it, that no region holds."""


def box_of(place: Locator) -> dict[str, float]:
    box = place.bounding_box()
    assert box is not None
    return dict(box)


def test_wheel_keys_buttons_and_dragging_zoom_and_move(visit: Visit) -> None:
    page = visit.page
    visit.wait_for_result()
    whole = visit.pixels()
    box = box_of(page.locator(".ov-canvas"))
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.wait_for_timeout(600)
    below = page.locator(".ov-tip").inner_text()
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => document.querySelector('.ov-stage').dataset.zoomed === 'true'")
    zoomed = visit.pixels()
    assert zoomed != whole
    # The same place of the photo is under the pointer.
    page.mouse.move(box["x"] + 0.3 * box["width"] + 1, box["y"] + 0.3 * box["height"])
    assert page.locator(".ov-tip").inner_text() == below

    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"], steps=3)
    page.mouse.up()
    moved = visit.pixels()
    assert moved != zoomed and not page.locator(".ov-region").is_visible()

    page.locator(".ov-stage").focus()
    page.keyboard.press("Shift+ArrowRight")
    assert visit.pixels() != moved
    page.keyboard.press("0")
    page.mouse.move(0, 0)
    assert visit.pixels() == whole
    page.locator(".ov-in").click()
    page.locator(".ov-stage").focus()
    page.keyboard.press("-")
    page.mouse.move(0, 0)
    assert visit.pixels() == whole


def test_the_wheel_scrolls_the_page_away_from_a_whole_picture(visit: Visit) -> None:
    visit.wait_for_result()
    box = box_of(visit.page.locator(".ov-canvas"))
    visit.page.mouse.move(box["x"] + 50, box["y"] + 50)
    visit.page.mouse.wheel(0, 200)
    visit.page.wait_for_function("() => window.scrollY > 50")
    assert visit.page.locator(".ov-stage[data-zoomed=true]").count() == 0


def test_two_fingers_zoom(phone: Visit) -> None:
    phone.wait_for_result()
    stage = phone.page.locator(".ov-stage")
    stage.scroll_into_view_if_needed()
    box = box_of(stage)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = phone.page.context.new_cdp_session(phone.page)

    def touch(kind: str, apart: float) -> None:
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}] if apart else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in (45, 60, 90):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    assert stage.get_attribute("data-zoomed") == "true"


def test_the_whole_screen(visit: Visit) -> None:
    visit.wait_for_result()
    before = box_of(visit.page.locator(".ov-stage"))
    visit.page.locator(".ov-whole-screen").click()
    visit.page.wait_for_function("() => document.fullscreenElement !== null")
    visit.page.wait_for_function(
        "(width) => document.querySelector('.ov-stage').clientWidth > width + 20", arg=before["width"]
    )


@pytest.mark.parametrize("where", ["#headline", ".ov-stage", ".ov-facts"])
def test_a_photo_dropped_anywhere_is_taken(visit: Visit, where: str) -> None:
    visit.wait_for_result()
    dropped = carried(visit)
    for kind in ("dragenter", "dragover"):
        visit.page.dispatch_event(where, kind, {"dataTransfer": dropped})
    assert visit.page.locator(".ov-drop").is_visible()
    visit.page.dispatch_event(where, "drop", {"dataTransfer": dropped})
    visit.page.wait_for_selector(".ov-stage[data-state=chosen]", timeout=PATIENCE_MS)
    assert not visit.page.locator(".ov-drop").is_visible()


def test_a_picture_pasted_anywhere_is_taken(visit: Visit) -> None:
    visit.wait_for_result()
    visit.page.evaluate(
        """(clipboardData) => document.body.dispatchEvent(
             new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))""",
        carried(visit),
    )
    visit.page.wait_for_selector(".ov-stage[data-state=chosen]", timeout=PATIENCE_MS)


def carried(visit: Visit) -> Any:
    return visit.page.evaluate_handle(
        """(content) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(content)], "carried.jpg", { type: "image/jpeg" }));
          return files;
        }""",
        list((EXAMPLES / "coffee.jpg").read_bytes()),
    )


def test_a_press_where_no_region_is_says_so(visit: Visit) -> None:
    for example in visit.page.locator("#examples button").all():
        example.click()
        visit.page.wait_for_timeout(1500)
        if spot := visit.page.evaluate(BARE_SPOT):
            break
    assert spot
    box = box_of(visit.page.locator(".ov-canvas"))
    visit.page.mouse.click(box["x"] + spot[0] * box["width"], box["y"] + spot[1] * box["height"])
    assert "No region was found here" in visit.page.locator(".ov-tip").inner_text()
    assert "How many masks" in visit.page.locator(".ov-walked").inner_text()


def test_on_a_phone_the_card_is_a_sheet_and_the_picture_stays_in_sight(phone: Visit) -> None:
    phone.wait_for_result()
    stage = phone.page.locator(".ov-stage")
    stage.scroll_into_view_if_needed()
    box = box_of(stage)
    phone.page.touchscreen.tap(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.55)
    card = box_of(phone.page.locator(".ov-region"))
    picture = box_of(stage)
    assert card["y"] >= 844 / 2 - 2 and card["y"] + card["height"] <= 846
    assert picture["y"] >= -2 and picture["y"] + picture["height"] <= card["y"] + 2


def test_arrow_keys_leave_the_headline(visit: Visit) -> None:
    visit.wait_for_result()
    told = visit.status
    visit.page.locator(".ov-stage").focus()
    visit.page.keyboard.press("ArrowRight")
    assert visit.status == told
    assert visit.page.locator(".ov-walked").inner_text().startswith("Region #")
