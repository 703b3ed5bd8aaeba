"""A visitor's memory, files that carry corrections, and labels that are opened, in a real browser."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_correcting import Editing
from visiting import EXAMPLES, PATIENCE_MS, Visit, visiting

from ovseg_demo.memory import Memory
from ovseg_demo.output.mask_formats import decode_rle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


def remembering(visit: Visit, name: str = "Bessie") -> Editing:
    """A visitor who has named the large cow."""
    editing = Editing(visit)
    editing.tool("select")
    editing.press(0.5, 0.5)
    visit.page.keyboard.press("r")
    editing.names(name)
    visit.waits_for("Your memory: 1 example", ".mem summary")
    return editing


def mirrored(folder: Path) -> Path:
    """The mirrored photo, which counts as another one."""
    path = folder / "mirrored.png"
    ImageOps.mirror(Image.open(EXAMPLES / "cow.jpg")).save(path)
    return path


def test_an_example_names_its_like_in_the_next_photo(
    visit: Visit, browser: Browser, url: str, tmp_path: Path
) -> None:
    editing, page = remembering(visit), visit.page
    visit.choose(mirrored(tmp_path))
    visit.type("grass, horse, Bessie")
    page.locator("#run").click()
    visit.wait_for_result()
    assert editing.at(0.5, 0.5) == ("Bessie", False)

    # Another visitor with the same photo and words has no such memory.
    others = visiting(browser, url, viewport={"width": 1360, "height": 950})
    other = next(others)
    try:
        other.choose(tmp_path / "mirrored.png")
        other.type("grass, horse, Bessie")
        other.page.locator("#run").click()
        other.wait_for_result()
        assert Editing.of(other).at(0.5, 0.5)[0] != "Bessie"
        assert "0 examples" in other.page.locator(".mem summary").inner_text()
    finally:
        next(others, None)

    # Switched off, it has no effect.
    page.locator(".mem summary").click()
    page.locator(".mem .ed-row input[type=checkbox]").uncheck()
    page.locator("#run").click()
    visit.waits_for_other_words()
    assert editing.at(0.5, 0.5)[0] != "Bessie"
    assert visit.complaints == [] and visit.elsewhere == []


def test_examples_follow_undo_and_survive_a_reload(visit: Visit) -> None:
    editing, page = remembering(visit), visit.page
    editing.act("Undo")
    visit.waits_for("Your memory: 0 examples", ".mem summary")
    editing.act("Redo")
    visit.waits_for("Your memory: 1 example", ".mem summary")
    editing.saved()
    page.reload()
    visit.waits_for("Your memory: 1 example", ".mem summary")
    page.locator(".mem summary").click()
    assert page.locator(".mem-list img").evaluate("image => image.naturalWidth") > 10
    page.get_by_role("button", name="Remove the example Bessie").click()
    visit.waits_for("Your memory: 0 examples", ".mem summary")


def test_a_memory_is_taken_away_and_brought_back(visit: Visit, tmp_path: Path) -> None:
    page = remembering(visit).page
    page.locator(".mem summary").click()
    with page.expect_download(timeout=PATIENCE_MS) as coming:
        page.locator(".mem").get_by_role("button", name="Export").click()
    path = tmp_path / "memory.safetensors"
    coming.value.save_as(path)
    memory = Memory.load(path)
    assert memory.names == ("Bessie",) and memory.examples[0].thumbnail
    page.locator(".mem").get_by_role("button", name="Remove all").click()
    visit.waits_for("Your memory: 0 examples", ".mem summary")
    page.locator(".mem input[type=file]").set_input_files(path)
    visit.waits_for("1 example read, 1 of them new", ".mem [role=status]")
    visit.waits_for("Your memory: 1 example", ".mem summary")

    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(Memory("another-clip", dict.fromkeys(memory.weights, "0" * 16)).to_bytes())
    page.locator(".mem input[type=file]").set_input_files(foreign)
    visit.waits_for("another-clip", ".mem [role=status]")


def test_files_carry_corrections_and_are_opened_again(
    visit: Visit, browser: Browser, url: str, tmp_path: Path
) -> None:
    remembering(visit)
    with zipfile.ZipFile(visit.take_away(tmp_path)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    coco = json.loads(next(data for name, data in found.items() if name.endswith("coco.json")))
    categories = {one["id"]: one["name"] for one in coco["categories"]}
    bessie = [a for a in coco["annotations"] if categories[a["category_id"]] == "Bessie"]
    assert bessie
    size = tuple(bessie[0]["segmentation"]["size"])
    mask = decode_rle(bessie[0]["segmentation"]["counts"], (size[0], size[1]))
    assert mask[size[0] // 2, size[1] // 2]
    labels = next(data for name, data in found.items() if name.endswith("label_map.png"))
    assert Image.open(io.BytesIO(labels)).size == (size[1], size[0])
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco), encoding="utf-8")

    others = visiting(browser, url, viewport={"width": 1360, "height": 950})
    other = next(others)
    try:
        fresh = Editing(other)
        other.page.locator(".ed-bar input[type=file]").set_input_files(path)
        other.waits_for("opened", ".ed-hint")
        assert fresh.at(0.5, 0.5) == ("Bessie", True)
        assert np.any(mask)
        broken = tmp_path / "broken.json"
        broken.write_text("{", encoding="utf-8")
        other.page.locator(".ed-bar input[type=file]").set_input_files(broken)
        other.waits_for("no JSON", ".ed-hint")
    finally:
        next(others, None)


def test_the_page_that_is_saved_has_the_corrections(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    page = remembering(visit).page
    page.locator("#format input").click()
    page.get_by_role("option", name="A page with this result, to open anywhere (HTML)").click()
    with page.expect_download(timeout=PATIENCE_MS) as coming:
        page.locator("#make").click()
    coming.value.save_as(tmp_path / "cow.html")
    alone = browser.new_page(viewport={"width": 1360, "height": 950})
    errors: list[str] = []
    alone.on("pageerror", lambda error: errors.append(str(error)))
    alone.goto((tmp_path / "cow.html").as_uri())
    row = alone.locator(".ov-legend tbody tr").filter(has_text="Bessie")
    row.wait_for(timeout=PATIENCE_MS)
    box = alone.locator(".ov-canvas").bounding_box()
    assert box is not None
    alone.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "Bessie" in alone.locator(".ov-region h2").inner_text()
    assert "Corrected by you" in alone.locator(".ov-region").inner_text()
    alone.close()
    assert errors == []


def test_a_batch_has_the_memory(visit: Visit, tmp_path: Path) -> None:
    page = remembering(visit).page
    visit.type("grass, horse, Bessie")
    page.locator("#batch button").first.click()
    page.locator("#batch-files input[type=file]").set_input_files([mirrored(tmp_path)])
    page.locator("#batch-files a, #batch-files .file-preview").first.wait_for(timeout=PATIENCE_MS)
    page.locator("#batch-run").click()
    page.wait_for_function(
        "() => document.querySelector('#batch-told textarea').value.includes('1 of 1 photos done')",
        timeout=PATIENCE_MS,
    )
    with page.expect_download(timeout=PATIENCE_MS) as coming:
        page.locator("#batch-results a").first.click()
    with zipfile.ZipFile(coming.value.path()) as archive:
        name = next(n for n in archive.namelist() if n.endswith("mirrored/result.json"))
        facts = json.loads(archive.read(name))
    assert facts["settings"]["memory"] == 1
    assert [c["name"] for c in facts["classes"] if c["found"] and c["name"] == "Bessie"]
