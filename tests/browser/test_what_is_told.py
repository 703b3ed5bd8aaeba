"""What the page shows belongs to its photo, and what it says about it is true."""

from __future__ import annotations

import json
import math
import re
import secrets
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from visiting import EXAMPLES, PATIENCE_MS, Visit

from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow


def test_a_photo_chosen_during_a_run_is_not_given_the_other_ones_result(
    visit: Visit, new_to_all: ModelPool
) -> None:
    visit.choose(EXAMPLES / "pagoda.jpg")
    visit.type("pagoda, sky, cup")
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    visit.choose(EXAMPLES / "coffee.jpg")
    bare = visit.pixels()
    visit.page.locator("#run").wait_for()
    visit.page.wait_for_timeout(5000)
    assert visit.page.locator(".ov-stage").get_attribute("data-state") == "chosen"
    assert visit.pixels() == bare and "press Run" in visit.status
    visit.page.locator("#run").click()
    visit.wait_for_result()
    assert visit.page.evaluate("() => ovseg.shown().photo_name") == "coffee.jpg"
    assert visit.complaints == []


def test_an_example_clicked_during_a_run_stays(visit: Visit, new_to_all: ModelPool) -> None:
    visit.choose(EXAMPLES / "pagoda.jpg")
    visit.type("pagoda, sky")
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    visit.page.locator("#examples button").nth(2).click()
    visit.waits_for("Cup of coffee", ".ov-timing")
    visit.page.wait_for_timeout(5000)
    assert "Cup of coffee" in visit.page.locator(".ov-timing").inner_text()
    assert visit.page.locator("#run").is_visible()


def test_the_headline_says_what_was_found_and_then_what_the_other_arm_says(visit: Visit) -> None:
    visit.wait_for_result()
    assert re.fullmatch(r"[A-Z].* found; no .*\.", visit.status)
    assert "CLIP" not in visit.status and "plain CLIP" in visit.page.locator(".ov-second").inner_text()
    above = visit.page.locator(".ov-status").bounding_box()
    picture = visit.page.locator(".ov-stage").bounding_box()
    assert above is not None and picture is not None and above["y"] < picture["y"]


def test_only_an_answer_without_waiting_is_called_instant(visit: Visit) -> None:
    """Many new words take seconds: their progress is told, and what was done again afterwards."""
    visit.run()
    mark = secrets.token_hex(4)  # names that no cache has, not even that of an earlier run
    names = [f"{name} {mark}" for name in Vocabulary.preset("ade20k-150").names]
    visit.type(", ".join(names))
    visit.page.locator("#run").click()
    visit.waits_for("Reading words: ")
    visit.page.locator("#run").wait_for(timeout=PATIENCE_MS)
    visit.waits_for_other_words()
    told = visit.page.locator(".ov-timing").inner_text()
    assert not visit.page.locator(".ov-again").is_visible()
    assert re.search(r"scored again: [\d.]+ s \(words [\d.]+ s\)", told), told


def test_other_sentences_say_how_long_they_took(visit: Visit) -> None:
    page = visit.page
    visit.run()
    # The next answer may take as long as this one, to the digit.
    page.evaluate("() => document.querySelector('.ov-timing').lastElementChild.textContent = ''")
    page.locator("#settings button").first.click()
    page.locator("#advanced button").first.click()
    page.get_by_label("Sentences around a word").click()
    page.get_by_role("option", name="1", exact=True).click()
    visit.waits_for("scored again: ", ".ov-timing")
    told = re.search(r"scored again: ([\d.]+) s", page.locator(".ov-timing").inner_text())
    assert told is not None
    assert not (page.locator(".ov-again").is_visible() and float(told[1]) > 0.5)


def test_strictness_and_picture_are_in_sight_together(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 1360, "height": 900})
    visit.wait_for_result()
    slider = visit.page.locator("#strictness input[type=range]").bounding_box()
    picture = visit.page.locator(".ov-stage").bounding_box()
    assert slider is not None and picture is not None
    assert slider["y"] > 0 and picture["y"] + picture["height"] <= 900
    # At its left edge.
    box = visit.page.locator("#strictness").bounding_box()
    assert box is not None and abs(box["x"] - picture["x"]) < 24


def test_words_of_the_trade_are_explained_or_absent(visit: Visit) -> None:
    page = visit.page
    visit.wait_for_result()
    page.locator("#settings button").first.click()
    page.locator("#advanced button").first.click()
    page.get_by_label("Arm", exact=True).wait_for()
    text = page.locator("body").inner_text()
    assert not re.search(r"distractor|logit|softmax", text, re.IGNORECASE)
    assert "Opacity" in text and not re.search(r"^Colour\b", text, re.MULTILINE)
    assert "What names the regions" in text  # an arm
    assert page.locator("[data-mode=vanilla]").get_attribute("title") == "Vanilla: CLIP as it was before"


def test_old_suggestions_go_with_their_photo(visit: Visit) -> None:
    visit.page.locator("#what-else").click()
    visit.waits_for("…", "#what-else")  # says what it is at
    visit.page.locator("#suggestions button").first.wait_for(timeout=PATIENCE_MS)
    visit.choose(EXAMPLES / "coffee.jpg")
    visit.page.locator("#suggestions button").first.wait_for(state="detached")


def test_what_else_needs_no_run_before(visit: Visit) -> None:
    visit.choose(EXAMPLES / "coffee.jpg")
    visit.page.locator("#what-else").click()
    visit.page.locator("#suggestions button").first.wait_for(timeout=PATIENCE_MS)
    visit.waits_for("What else is here?", "#what-else")
    assert visit.page.locator(".ov-status[data-level=error]").count() == 0


def test_the_badge_names_what_made_the_picture(visit: Visit) -> None:
    visit.wait_for_result()
    visit.page.locator("#settings button").first.click()
    visit.page.get_by_label("CLIP", exact=True).click()
    visit.page.get_by_role("option", name=re.compile("clip-vit-b-16")).click()
    visit.page.wait_for_timeout(1000)
    assert "ovseg-mini" in visit.page.locator("#badge").inner_text()
    visit.waits_for("CLIP", "#pending")


def test_a_confidence_is_the_same_number_wherever_it_is_shown(visit: Visit, tmp_path: Path) -> None:
    """The tip, the card, its list, the table of changes, the keyboard's line and the exported file."""
    visit.wait_for_result()
    page = visit.page
    shown = page.evaluate(
        """() => {
          const { arms, comparison, width, height } = ovseg.shown();
          const renamed = comparison.renamed.map((region) => region.id), arm = arms.adapted;
          const named = arm.facts.filter((f) => f.class_index && renamed.includes(f.id));
          const [fact] = named.sort((one, other) => other.area_fraction - one.area_fraction);
          const inside = [...arm.regions.keys()].filter((i) => arm.regions[i] === fact.id);
          const at = inside[inside.length >> 1];
          return { fact, x: ((at % width) + 0.5) / width, y: (Math.floor(at / width) + 0.5) / height };
        }"""
    )
    fact = shown["fact"]
    number = f"{math.floor(100 * fact['confidence'] + 0.5)} %"
    canvas = page.locator(".ov-canvas").bounding_box()
    assert canvas is not None
    # Waits until the page no longer moves, as it does while thumbnails arrive.
    place = {"x": shown["x"] * canvas["width"], "y": shown["y"] * canvas["height"]}
    page.locator(".ov-canvas").hover(position=place)  # type: ignore[arg-type]
    assert number in page.locator(".ov-tip div").first.inner_text()
    pin = page.get_by_role("button", name=f"Pin region {fact['id']}", exact=True)
    pin.click()
    assert page.locator(".ov-verdict").inner_text().endswith(number)
    assert page.locator(".ov-top").first.locator("li").first.inner_text().endswith(number)
    row = page.locator(".ov-changes tr", has=pin)
    assert row.locator("td").last.inner_text().endswith(number)
    page.locator(".ov-stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert number in page.locator(".ov-walked").inner_text()

    with zipfile.ZipFile(visit.take_away(tmp_path)) as archive:
        kept = json.loads(archive.read("result.json"))
    (region,) = [one for one in kept["regions"] if one["id"] == fact["id"]]
    assert region["confidence"] == fact["confidence"]
    told = page.locator(".ov-legend tbody tr").all_inner_texts()
    found = [c for c in kept["classes"] if c["found"]]
    assert len(told) == len(found)
    for c in found:
        row_text = next(text for text in told if c["name"] in text)
        assert row_text.endswith(f"{math.floor(100 * c['confidence'] + 0.5)} %")
