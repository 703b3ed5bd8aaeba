"""A name is text wherever it is shown, also where Gradio shows it and takes its messages for HTML."""

from __future__ import annotations

import pytest
from visiting import PATIENCE_MS, Visit

pytestmark = pytest.mark.slow

MARKUP = "<img src=x onerror=window.hurt=1>"


def unhurt(visit: Visit) -> bool:
    return bool(
        visit.page.evaluate("() => window.hurt === undefined && !document.querySelector('img[src=x]')")
    )


def test_in_legend_card_status_and_table_of_changes(visit: Visit) -> None:
    # Found by its synonym, so that it stands everywhere a found name does.
    visit.run(words=f"{MARKUP} | cow, <b>bold</b> | grass, zebra<script>window.hurt=1</script>")
    assert MARKUP in visit.page.locator(".ov-facts").inner_text()
    visit.page.locator(".ov-stage").focus()
    for _ in range(4):
        visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("Enter")
    assert "<" in visit.page.locator(".ov-region").inner_text()
    for mode in ("split", "difference", "adapted"):
        visit.page.locator(f"[data-mode={mode}]").click()
    assert unhurt(visit)
    assert visit.page.locator("#viewer b, #viewer script").filter(has_text="bold").count() == 0
    assert visit.complaints == []


def test_in_the_line_of_an_error(visit: Visit) -> None:
    visit.type(MARKUP + "x" * 100)
    visit.page.locator("#photo input[type=file]").first.set_input_files(__file__)
    visit.page.locator("#run").click()
    visit.waits_for("(request ")
    assert unhurt(visit)


def test_in_the_messages_that_gradio_shows(visit: Visit) -> None:
    visit.type("<img src=x onerror=hurt=1>" + "x" * 100)
    visit.page.locator("#batch button").first.click()
    visit.page.locator("#batch-run").click()
    toast = visit.page.get_by_text("has 126 characters").first
    toast.wait_for(timeout=PATIENCE_MS)
    assert "<img src=x onerror=hurt=1>" in toast.inner_text()
    assert unhurt(visit)
