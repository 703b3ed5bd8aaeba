"""No serious finding of axe on any state of the page, light, dark and on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from test_correcting import Editing
from visiting import EXAMPLES, Visit

pytestmark = pytest.mark.slow


def findings(visit: Visit) -> list[str]:
    """The findings that axe calls serious or critical, one line each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    report: dict[str, Any] = axe.Axe().run(visit.page).response
    return [
        f"{v['id']}: {node['target']} {node['failureSummary']}"
        for v in report["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def test_before_anything_has_run(visit: Visit) -> None:
    assert findings(visit) == []


def test_with_a_result_a_pinned_region_and_a_comparison(visit: Visit) -> None:
    visit.run()
    visit.page.locator(".ov-stage").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("Enter")
    for mode in ("split", "difference", "adapted"):
        visit.page.locator(f"[data-mode={mode}]").click()
        assert findings(visit) == []


def test_with_everything_unfolded(visit: Visit) -> None:
    for panel in ("#settings", "#advanced", "#batch"):
        visit.page.locator(f"{panel} button").first.click()
    visit.page.locator(".ov-keys summary").click()
    visit.page.wait_for_timeout(1000)
    assert findings(visit) == []


def test_nothing_found(visit: Visit) -> None:
    visit.run(words="zebra")
    assert findings(visit) == []


def test_a_photo_that_waits_for_words(visit: Visit) -> None:
    visit.choose(EXAMPLES / "coffee.jpg")
    assert findings(visit) == []


def test_an_error(visit: Visit) -> None:
    visit.type(" , ")
    visit.page.locator("#run").click()
    visit.waits_for("There is no name")
    assert findings(visit) == []


def test_in_the_dark(at_night: Visit) -> None:
    at_night.run()
    assert findings(at_night) == []


def test_on_a_phone(phone: Visit) -> None:
    phone.run()
    assert findings(phone) == []


@pytest.mark.parametrize("where", ["visit", "at_night", "phone"])
def test_with_the_tools_and_a_name_to_choose(where: str, request: pytest.FixtureRequest) -> None:
    visitor: Visit = request.getfixturevalue(where)
    editing = Editing(visitor)
    editing.press(0.5, 0.5)
    editing.waits_for_names()
    assert findings(visitor) == []
    editing.names("Bessie")
    visitor.waits_for("Your memory: 1 example", ".mem summary")
    visitor.page.locator(".mem summary").click()
    editing.tool("brush")
    assert findings(visitor) == []
