"""Small things that visitors meet: calls that lack values, the list of models, names on a narrow screen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from visiting import Visit

from ovseg_demo.models import listed_names
from ovseg_demo.page.examples import load_examples

pytestmark = pytest.mark.slow


def show(visit: Visit, number: int) -> None:
    """Show an example, unless it is shown: the answer to a click on it would arrive during the next one."""
    title = load_examples()[number].title
    if title not in visit.page.locator(".ov-timing").inner_text():
        visit.page.locator("#examples button").nth(number).click()
        visit.waits_for(title, ".ov-timing")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "The call has 0 values and lacks photo and words; these may be left out: weights, model"),
        ([None], "The call has 1 values and lacks words"),
    ],
)
def test_a_call_that_misses_values_is_told_which(visit: Visit, url: str, data: list[Any], told: str) -> None:
    answer = visit.page.request.post(f"{url}gradio_api/call/segment", data={"data": data})
    assert answer.status == 422 and told in answer.json()["detail"]


def test_the_list_of_models_tells_size_speed_and_what_is_not_here(visit: Visit) -> None:
    page = visit.page
    visit.wait_for_result()
    page.locator("#settings button").first.click()
    page.get_by_label("CLIP", exact=True).click()
    listed = page.get_by_role("option").all_inner_texts()
    assert any(re.search(r"ovseg-mini, \d+ MB, seconds$", one.strip()) for one in listed), listed
    large = next(one for one in listed if "clip-vit-l-14" in one)
    assert re.search(r"\d\.\d GB, minutes without a GPU", large)
    names = {one.strip().removeprefix("✓").strip().partition(",")[0] for one in listed}
    assert names == set(listed_names("clip"))  # no folder of the server


def test_words_are_not_broken_inside_on_a_phone(phone: Visit) -> None:
    phone.wait_for_result()
    for number in range(len(load_examples())):
        show(phone, number)
        broken = phone.page.evaluate(
            """() => {
              const broken = [];
              for (const name of document.querySelectorAll(".ov-name, .ch-name")) {
                const text = name.lastChild;
                if (!text?.data || !name.getClientRects().length) continue;
                for (const word of text.data.matchAll(/[^\\s-]+/g)) {
                  const range = document.createRange();
                  range.setStart(text, word.index);
                  range.setEnd(text, word.index + word[0].length);
                  const lines = new Set([...range.getClientRects()].map((box) => box.top));
                  if (lines.size > 1) broken.push(word[0]);
                }
              }
              return broken;
            }"""
        )
        assert broken == []


RECORD_NAMES = """() => {
  const draw = CanvasRenderingContext2D.prototype.roundRect;
  window.namesDrawn = [];
  CanvasRenderingContext2D.prototype.roundRect = function (x, y, w, h, r) {
    if (this.canvas.classList.contains("ov-canvas")) {
      const at = this.getTransform(), frame = this.canvas.getBoundingClientRect();
      const scale = frame.width / this.canvas.width;
      const [left, top] = [(x * at.a + at.e) * scale, (y * at.d + at.f) * scale];
      const [width, height] = [w * at.a * scale, h * at.d * scale];
      window.namesDrawn.push([frame.left + left, frame.top + top, width, height]);
    }
    return draw.call(this, x, y, w, h, r);
  };
}"""
"""Writes down where names are drawn, in pixels of the window."""


def covered(visit: Visit, selector: str) -> list[list[float]]:
    """Names of the picture, drawn again, that lie under a part of the page."""
    found: list[list[float]] = visit.page.evaluate(
        """(selector) => {
          window.namesDrawn = [];
          const names = document.querySelector(".ov-names");
          names.click();
          names.click();
          if (!window.namesDrawn.length) throw new Error("no name was drawn");
          const box = document.querySelector(selector).getBoundingClientRect();
          return window.namesDrawn.filter(([left, top, w, h]) =>
            left < box.right && box.left < left + w && top < box.bottom && box.top < top + h);
        }""",
        selector,
    )
    return found


def test_the_zoom_buttons_cover_no_name_on_a_phone(phone: Visit) -> None:
    phone.wait_for_result()
    phone.page.evaluate(RECORD_NAMES)
    for number in range(len(load_examples())):
        show(phone, number)
        assert covered(phone, ".ov-zoom") == []
    box = phone.page.locator(".ov-zoom").bounding_box()
    assert box is not None and box["x"] + box["width"] <= 390
    phone.page.locator(".ov-in").tap()
    phone.page.wait_for_function("() => document.querySelector('.ov-stage').dataset.zoomed === 'true'")


def test_names_make_room_for_the_zoom_buttons_on_a_desktop(visit: Visit) -> None:
    """Where their area has room beside or above the buttons."""
    visit.wait_for_result()
    visit.page.evaluate(RECORD_NAMES)
    stems = [one.photo.stem for one in load_examples()]
    for stem in ("horses", "pagoda", "raccoon"):
        show(visit, stems.index(stem))
        assert covered(visit, ".ov-zoom") == []


@pytest.mark.parametrize("size", ["visit", "phone"])
def test_the_labels_of_the_split_cover_no_name(request: pytest.FixtureRequest, size: str) -> None:
    visitor: Visit = request.getfixturevalue(size)
    visitor.wait_for_result()
    visitor.page.evaluate(RECORD_NAMES)
    for number in range(len(load_examples())):
        show(visitor, number)
        visitor.page.locator("[data-mode=split]").click()
        assert visitor.page.locator(".ov-sides").is_visible()
        assert covered(visitor, ".ov-sides") == []
    labels = visitor.page.locator(".ov-sides").bounding_box()
    picture = visitor.page.locator(".ov-stage").bounding_box()
    assert labels is not None and picture is not None
    # Right above the picture.
    assert 0 <= picture["y"] - labels["y"] - labels["height"] < 12
