"""Words as chips: in the colours of the picture, completed, corrected, pasted, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from visiting import PATIENCE_MS, Visit

if TYPE_CHECKING:
    from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow


def words(visit: Visit) -> str:
    return visit.page.locator("#words textarea").input_value()


def only(visit: Visit, *kept: str) -> None:
    """Replace all chips by these, which are typed."""
    while visit.page.locator(".ch-remove").count():
        visit.page.locator(".ch-remove").first.click()
    for word in kept:
        visit.page.locator(".ch-input").type(f"{word},")


def test_chips_wear_the_colours_of_the_picture_and_toggle(visit: Visit) -> None:
    visit.wait_for_result()
    row = visit.page.locator(".ov-legend tbody tr").first
    name = row.locator(".ov-name").inner_text()
    chip = visit.page.locator(".ch-chip", has=visit.page.locator(f"button:text('{name}')")).first
    colour = "(node) => getComputedStyle(node).backgroundColor"
    assert chip.locator(".ch-dot").evaluate(colour) == row.locator(".ov-swatch").evaluate(colour)
    before = visit.pixels()
    chip.locator(".ch-name").click()
    assert visit.pixels() != before and not row.locator("input").is_checked()
    assert chip.locator(".ch-name").get_attribute("aria-pressed") == "false"
    assert visit.page.locator(".ch-chip[data-state=absent]").count() >= 1


def test_words_are_typed_completed_and_removed(visit: Visit) -> None:
    only(visit, "cow")
    box = visit.page.locator(".ch-input")
    box.type("televisi")
    options = visit.page.locator(".ch-options li")
    assert options.first.inner_text().startswith("television")
    box.press("ArrowDown")
    chosen = options.first.inner_text()
    box.press("Enter")
    visit.page.wait_for_function(
        "(told) => document.querySelector('#words textarea').value === told", arg=f"cow, {chosen}"
    )
    box.press("Backspace")
    assert words(visit) == "cow"
    visit.page.get_by_role("button", name="Remove cow").click()
    assert words(visit) == ""


def test_separators_and_pasted_lists_part_words(visit: Visit) -> None:
    only(visit)
    box = visit.page.locator(".ch-input")
    box.type("dog; cat,")
    assert words(visit) == "dog, cat"
    box.evaluate(
        """(node) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", "sofa | couch\\ngrass;sky\\nDog");
          node.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    assert words(visit) == "dog, cat, sofa | couch, grass, sky"
    assert visit.page.locator(".ch-chip").count() == 5


def test_a_name_in_quotes_keeps_its_comma(visit: Visit) -> None:
    only(visit)
    visit.page.locator(".ch-input").type('"fence, wooden", sky,')
    assert words(visit) == '"fence, wooden", sky'
    assert visit.page.locator(".ch-chip").count() == 2


def test_a_slip_is_told_and_mended(visit: Visit) -> None:
    only(visit, "telvision", "cows", "dog")
    assert "did you mean" not in visit.page.locator(".ch-hint").inner_text()  # of the last word only
    only(visit, "telvision")
    visit.page.locator(".ch-hint button", has_text="television").click()
    assert words(visit) == "television"


@pytest.mark.parametrize("word", ["собака", "犬", "Bäume"])
def test_other_languages_are_answered(visit: Visit, word: str) -> None:
    only(visit, word)
    assert "English only, for now" in visit.page.locator(".ch-hint").inner_text()


def test_enter_runs(visit: Visit, new_to_all: ModelPool) -> None:
    only(visit)
    visit.page.locator(".ch-input").type("cow, grass, zebra")
    visit.page.locator(".ch-input").press("Enter")
    visit.waits_for("Done in", ".ov-timing")
    assert words(visit) == "cow, grass, zebra"
    visit.page.locator(".ch-chip[data-state=new]").first.wait_for(state="detached", timeout=PATIENCE_MS)
    assert visit.page.locator(".ch-chip").count() == 3


def test_the_words_of_an_example_become_chips_and_names_stay_names(visit: Visit) -> None:
    visit.page.locator("#examples button").nth(2).click()
    visit.page.wait_for_selector(".ch-chip >> text=coffee", timeout=PATIENCE_MS)
    visit.page.locator(".ch-input").type("<img src=x onerror=window.hurt=1>,")
    assert visit.page.locator(".ch-chip", has_text="<img src=x").count() == 1
    assert visit.page.evaluate("() => window.hurt") is None
