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

from ovseg_demo.memory import Example, Memory
from ovseg_demo.output.mask_formats import decode_rle, encode_rle
from ovseg_demo.teaching import TaughtPrompts
from tests.quick_teaching import quick_teaching

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
    page.locator(".mem").get_by_label("Use it").uncheck()
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


def test_a_full_memory_says_that_the_oldest_go_first(visit: Visit, tmp_path: Path) -> None:
    page = remembering(visit).page
    first = _exported(visit, tmp_path)
    features = first.examples[0].features
    full = Memory(first.model, first.weights)
    full = full.adding(Example(f"cow {number}", features) for number in range(1999))
    full_path = tmp_path / "full.safetensors"
    full_path.write_bytes(full.to_bytes())

    assert page.locator(".mem-full").inner_text() == ""
    page.locator(".mem input[type=file]").set_input_files(full_path)
    visit.waits_for("Your memory: 2000 examples", ".mem summary")
    visit.waits_for("at most 2,000 examples: with each new one the oldest goes", ".mem-full")
    assert _exported(visit, tmp_path).names[0] == "Bessie"

    more = Memory(full.model, full.weights).adding([Example("calf", features)])
    full_path.write_bytes(more.to_bytes())
    page.locator(".mem input[type=file]").set_input_files(full_path)
    visit.waits_for("1 example read, 1 of them new", ".mem [role=status]")
    kept = _exported(visit, tmp_path).names
    assert len(kept) == 2000 and (kept[0], kept[-1]) == ("cow 0", "calf")

    page.get_by_role("button", name="Remove the example calf").click()
    visit.waits_for("Your memory: 1999 examples", ".mem summary")
    assert page.locator(".mem-full").inner_text() == ""


def _exported(visit: Visit, folder: Path) -> Memory:
    """The memory as the panel exports it."""
    panel = visit.page.locator(".mem")
    if panel.get_attribute("open") is None:
        panel.locator("summary").click()
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        panel.get_by_role("button", name="Export").click()
    coming.value.save_as(folder / "exported.safetensors")
    return Memory.load(folder / "exported.safetensors")


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


def disc_labels(folder: Path, names: tuple[str, str] = ("sheep", "lawn"), each: int = 10) -> Path:
    """COCO's JSON of the cow photo: discs on the cow and on the grass."""
    with Image.open(EXAMPLES / "cow.jpg") as photo:
        width, height = photo.size
    ys, xs = np.ogrid[:height, :width]
    draw = np.random.default_rng(0)
    places = ((0.4, 0.4, 0.6, 0.6), (0.05, 0.85, 0.95, 0.95))
    annotations: list[dict[str, object]] = []
    for category, (x0, y0, x1, y1) in enumerate(places, start=1):
        for _ in range(each):
            x, y = draw.uniform(x0, x1) * width, draw.uniform(y0, y1) * height
            mask = (xs - x) ** 2 + (ys - y) ** 2 < (draw.uniform(0.04, 0.09) * width) ** 2
            code = {"size": [height, width], "counts": encode_rle(mask)}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 1, "category_id": category, "segmentation": code}
            )
    coco = {
        "images": [{"id": 1, "file_name": "cow.jpg", "height": height, "width": width}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": annotations,
    }
    path = folder / "discs.json"
    path.write_text(json.dumps(coco), encoding="utf-8")
    return path


def test_teaching_on_a_tiny_set(
    visit: Visit, browser: Browser, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_teaching(monkeypatch, helps=True)
    Editing(visit)
    page = visit.page
    page.locator(".mem summary").click()
    teach = page.locator(".mem-teach").get_by_role("button", name="Teach")
    assert teach.is_disabled()
    page.locator(".ed-bar input[type=file]").set_input_files(disc_labels(tmp_path))
    visit.waits_for("20 named regions in 1 photo", ".mem-teach .ed-row")

    teach.click()
    visit.waits_for("Taught with 20 regions of 2 names", ".mem-teach [role=status]")
    with page.expect_download(timeout=PATIENCE_MS) as coming:
        page.locator(".mem-teach").get_by_role("button", name="Download").click()
    taught = TaughtPrompts.load(coming.value.path())
    assert taught.facts["kept_out"] == 20
    assert coming.value.path().stat().st_size < 150_000

    page.get_by_role("button", name="Compare adapted with yours").click()
    visit.waits_for("CLIP that you taught", ".ov-second")
    assert page.evaluate("() => Object.keys(ovseg.shown().arms)") == ["yours", "adapted"]
    assert page.locator("[data-mode=adapted]").inner_text() == "Yours"
    page.locator("[data-mode=split]").click()
    assert page.locator(".ov-sides").inner_text().split() == ["adapted", "yours"]

    # Another visitor has nothing of it; this one has it after a reload.
    others = visiting(browser, url, viewport={"width": 1360, "height": 950})
    other = next(others)
    try:
        other.run(words="cow, grass, sheep")
        assert other.page.evaluate("() => Object.keys(ovseg.shown().arms)") == ["adapted", "vanilla"]
        other.page.locator(".mem summary").click()
        assert not other.page.locator(".mem-teach").get_by_role("button", name="Download").is_visible()
    finally:
        next(others, None)
    page.reload()
    visit.waits_for("Taught with 20 regions", ".mem-teach [role=status]")
    assert visit.complaints == [] and visit.elsewhere == []


def test_teaching_is_stopped(visit: Visit, tmp_path: Path) -> None:
    Editing(visit)
    page = visit.page
    page.locator(".mem summary").click()
    page.locator(".ed-bar input[type=file]").set_input_files(disc_labels(tmp_path))
    visit.waits_for("20 named regions in 1 photo", ".mem-teach .ed-row")
    teach = page.locator(".mem-teach").get_by_role("button", name="Teach")
    teach.click()
    page.locator(".mem-teach progress:not([hidden])").wait_for(timeout=PATIENCE_MS)
    visit.waits_for("part 1 of 5", ".mem-teach [role=status]")
    page.locator(".mem-teach").get_by_role("button", name="Stop").click()
    visit.waits_for("Stopped; nothing was learned", ".mem-teach [role=status]")
    assert not page.locator(".mem-teach").get_by_role("button", name="Download").is_visible()
    assert teach.is_enabled()


def batch_of(visit: Visit, photos: list[Path], words: str) -> None:
    """Run several photos at once, and wait until all are done."""
    page = visit.page
    visit.type(words)
    page.locator("#batch button").first.click()
    page.locator("#batch-files input[type=file]").set_input_files(photos)
    page.locator("#batch-files a, #batch-files .file-preview").first.wait_for(timeout=PATIENCE_MS)
    page.locator("#batch-run").click()
    done = f"{len(photos)} of {len(photos)} photos done"
    page.wait_for_function(
        "(done) => document.querySelector('#batch-told textarea').value.includes(done)",
        arg=done,
        timeout=PATIENCE_MS,
    )


def test_doubtful_regions_of_a_batch_are_reviewed_by_keys(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    batch_of(visit, [EXAMPLES / "cow.jpg", mirrored(tmp_path)], "cow, horse, grass, sky, hill")
    page.wait_for_function(
        """() => {
          const items = JSON.parse(localStorage.getItem("ovseg-review") || "null")?.items || [];
          return new Set(items.map((one) => one.file)).size === 2;
        }""",
        timeout=PATIENCE_MS,
    )
    page.locator(".rv-start").wait_for(timeout=PATIENCE_MS)
    left = int(page.locator(".rv-start").inner_text().split()[1])
    assert left >= 3
    page.locator(".rv-start").click()
    visit.waits_for(f"Review: 1 of {left}", ".rv h2")
    page.locator("[data-tool=select][aria-checked=true]").wait_for(timeout=PATIENCE_MS)
    first = page.locator(".rv [role=status]").inner_text()
    assert first.startswith(("cow.jpg", "mirrored.png")) and first.endswith(".")

    # y accepts, r corrects, n decides later; each goes on to the next one.
    page.keyboard.press("y")
    visit.waits_for(f"Review: 2 of {left}", ".rv h2")
    page.wait_for_function("() => document.activeElement?.classList.contains('ov-stage')")
    page.keyboard.press("r")
    page.locator(".ed-name input").fill("Bessie")
    page.locator(".ed-name input").press("Enter")
    visit.waits_for(f"Review: 3 of {left}", ".rv h2")
    page.wait_for_function("() => document.activeElement?.classList.contains('ov-stage')")
    page.keyboard.press("n")
    kept = page.evaluate(
        "() => JSON.parse(localStorage.getItem('ovseg-review')).items.map((one) => one.state)"
    )
    assert [state for state in kept if state] == ["accepted", "corrected", "skipped"]
    doubts = page.evaluate(
        "() => JSON.parse(localStorage.getItem('ovseg-review')).items.map((one) => one.doubt)"
    )
    assert doubts == sorted(doubts, reverse=True)
    visit.waits_for("example", ".mem summary")

    # How far one is outlasts the page.
    page.reload()
    page.locator("#batch button").first.click()
    page.locator(".rv-start").wait_for(timeout=PATIENCE_MS)
    assert page.locator(".rv-start").inner_text() == f"Review {left - 3} doubtful region{'s' * (left != 4)}"
    assert visit.complaints == [] and visit.elsewhere == []
