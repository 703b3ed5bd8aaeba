"""What a visitor does, done in a real browser."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from visiting import EXAMPLES, PATIENCE_MS, Visit, visiting

from ovseg_demo.page.layout import build, served

if TYPE_CHECKING:
    from conftest import Watched
    from playwright.sync_api import Browser

    from ovseg_demo.page.pool import ModelPool

pytestmark = pytest.mark.slow


def test_the_way_through(visit: Visit, tmp_path: Path) -> None:
    """Upload, run, hover, pin, hide a class, compare, edit words, take it away."""
    page = visit.page
    visit.run()
    assert "Done in" in page.locator(".ov-timing").inner_text()
    legend = page.locator(".ov-legend tbody tr")
    assert "cow" in page.locator(".ov-legend").inner_text()

    _over(visit, "cow")
    assert "cow" in page.locator(".ov-tip").inner_text()
    assert "adapted" in page.locator(".ov-tip").inner_text()

    page.mouse.down()
    page.mouse.up()
    card = page.locator(".ov-region")
    assert card.locator("canvas").is_visible()
    assert card.locator(".ov-top").count() == 2
    assert re.search(r"Region #\d+: cow", card.inner_text())

    coloured = visit.pixels()
    legend.filter(has_text="cow").locator("input").uncheck()
    assert visit.pixels() != coloured
    legend.filter(has_text="cow").locator("input").check()

    page.locator("[data-mode=split]").click()
    handle = page.locator(".ov-split")
    assert handle.is_visible()
    before = visit.pixels()
    handle.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "80"
    page.locator("[data-mode=difference]").click()
    assert visit.pixels() != before

    visit.type("cow, meadow, tree")
    page.locator("#words textarea").press("Enter")
    visit.waits_for_other_words()
    assert page.locator(".ov-again").is_visible()

    names = _names_in_zip(visit, tmp_path)
    assert {"overlay.png", "label_map.png", "comparison.png", "vanilla/overlay.png", "result.json"} <= names

    assert visit.complaints == [] and visit.elsewhere == []


def test_an_example_is_there_at_once_and_can_be_taken_away(
    visit: Visit, watched: Watched, tmp_path: Path
) -> None:
    begun = watched.begun
    visit.wait_for_result()
    assert "computed beforehand" in visit.page.locator(".ov-timing").inner_text()
    visit.page.locator("#examples button").nth(2).click()
    visit.waits_for("Cup of coffee", ".ov-timing")
    assert "coffee" in visit.page.locator("#words textarea").input_value()
    assert "coffee" in visit.legend and "CC0" in visit.page.locator(".ov-timing").inner_text()
    assert "comparison.json" in _names_in_zip(visit, tmp_path)
    assert watched.begun == begun
    assert visit.complaints == [] and visit.elsewhere == []


def test_what_changed_is_a_table_and_a_picture(visit: Visit) -> None:
    visit.page.locator("#examples button").nth(4).click()
    visit.waits_for("Living room", ".ov-timing")
    rows = visit.page.locator(".ov-changes tbody tr")
    told = int(re.search(r"(\d+) regions? renamed", visit.status)[1])  # type: ignore[index]
    assert told > 0
    if visit.page.locator(".ov-more").is_visible():
        visit.page.locator(".ov-more").click()
    assert rows.count() == told
    rows.first.locator("button").click()
    assert visit.page.locator(".ov-region").is_visible()
    plain = visit.pixels()
    visit.page.locator("[data-mode=difference]").click()
    named = visit.pixels()
    assert named != plain
    visit.page.locator(".ov-names").uncheck()
    assert visit.pixels() != named


def test_suggestions_distractors_and_strictness_are_scored_at_once(visit: Visit, watched: Watched) -> None:
    page = visit.page
    visit.run(words="zebra")
    assert page.locator(".ov-none").is_visible() and "zebra" in page.locator(".ov-missing").inner_text()
    ended = watched.ended
    page.locator(".ov-none button").click()
    page.locator("#suggestions button").first.wait_for(timeout=PATIENCE_MS)
    suggested = page.locator("#suggestions button").first.inner_text().strip()
    page.locator("#suggestions button").first.click()
    visit.waits_for(suggested, ".ov-facts")
    visit.waits_for_other_words()
    assert page.locator("#words textarea").input_value() == f"zebra, {suggested}"

    page.locator("#distractors").click()
    page.wait_for_function("() => document.querySelector('#words textarea').value.split(',').length === 7")
    page.wait_for_function(
        "() => document.querySelectorAll('.ov-missing s, .ov-legend tbody tr').length === 7",
        timeout=PATIENCE_MS,
    )

    found = page.locator(".ov-legend tbody tr").count()
    page.locator("#settings button").first.click()
    page.locator("#settings input[type=range]").first.focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "(found) => document.querySelectorAll('.ov-legend tbody tr').length > found",
        arg=found,
        timeout=PATIENCE_MS,
    )
    assert watched.ended == ended


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Overlay with legend (PNG)", "overlay.png"),
        ("Label map (palette PNG)", "label_map.png"),
        ("COCO instances (JSON, RLE)", "coco.json"),
        ("GeoJSON (pixel coordinates)", "regions.geojson"),
        ("YOLO segmentation (txt)", "yolo.zip"),
    ],
)
def test_every_format_can_be_chosen(visit: Visit, label: str, name: str) -> None:
    visit.wait_for_result()
    visit.page.locator("#format input").click()
    visit.page.get_by_role("option", name=label).click()
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        visit.page.locator("#make").click()
    assert coming.value.suggested_filename == name
    content = Path(coming.value.path()).read_bytes()
    if name.endswith(".png"):
        assert np.asarray(Image.open(io.BytesIO(content))).size > 0
    elif name.endswith(".zip"):
        assert "yolo/data.yaml" in zipfile.ZipFile(io.BytesIO(content)).namelist()
    else:
        assert json.loads(content)


def test_names_stay_names(visit: Visit) -> None:
    visit.run(words="<img src=x onerror=window.hurt=1>, cow, ${alert(1)}, {{value}}, \u202eevil")
    assert visit.page.evaluate("() => window.hurt") is None
    assert visit.page.locator("#viewer img").count() == 0
    told = visit.legend
    assert "<img src=x onerror=window.hurt=1>" in told and "${alert(1)}" in told and "{{value}}" in told
    assert visit.complaints == []


def test_errors_are_sentences_and_lose_nothing(visit: Visit) -> None:
    visit.run()
    rows = visit.page.locator(".ov-legend tbody tr").count()
    visit.type(" , ")
    visit.page.locator("#run").click()
    visit.waits_for("There is no name")
    assert visit.page.locator(".ov-legend tbody tr").count() == rows
    visit.page.get_by_role("button", name="Remove Image").click()
    visit.waits_for("type some words", ".ov-empty")
    visit.type("cow")
    visit.page.locator("#run").click()
    visit.waits_for("There is no photo yet")


def test_a_file_that_is_no_photo_is_told(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "not a photo.jpg").write_bytes(b"only words")
    visit.page.locator("#photo input[type=file]").first.set_input_files(tmp_path / "not a photo.jpg")
    visit.waits_for("cannot show this file")
    visit.type("cow")
    visit.page.locator("#run").click()
    visit.waits_for("picture")


def test_stop_stops_and_run_works_again(visit: Visit, watched: Watched, tmp_path: Path) -> None:
    mirrored = tmp_path / "street.png"  # no other test has looked at it
    Image.open(EXAMPLES / "street.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    visit.choose(mirrored)
    visit.type("car, building")
    stopped, ended = watched.stopped, watched.ended
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    visit.page.locator("#stop").click(timeout=PATIENCE_MS)
    visit.waits_for("Stopped")
    for _ in range(100):
        if watched.stopped > stopped:
            break
        visit.page.wait_for_timeout(200)
    assert (watched.stopped, watched.ended) == (stopped + 1, ended)
    visit.page.locator("#run").click()
    visit.wait_for_result()
    assert watched.ended == ended + 1


def test_whoever_waits_is_told_so(visit: Visit, phone: Visit, tmp_path: Path) -> None:
    for one, flip in ((visit, Image.Transpose.FLIP_TOP_BOTTOM), (phone, Image.Transpose.ROTATE_180)):
        photo = tmp_path / f"{flip.name}.png"
        Image.open(EXAMPLES / "horses.jpg").transpose(flip).save(photo)
        one.choose(photo)
        one.type("horse, sky")
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    phone.page.locator("#run").click()
    phone.waits_for("queue", "#queue")
    for one in (visit, phone):
        one.wait_for_result()


def test_whoever_finds_the_line_full_is_told_so(browser: Browser, pool: ModelPool, tmp_path: Path) -> None:
    settings = replace(pool.settings, max_queue=1)
    page = build(settings, pool)
    address = served(page, settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    visitors = [visiting(browser, address) for _ in range(3)]
    first, second, third = (next(visitor) for visitor in visitors)
    Image.open(EXAMPLES / "dogs.jpg").transpose(Image.Transpose.ROTATE_180).save(tmp_path / "dogs.png")
    first.choose(tmp_path / "dogs.png")
    first.page.locator("#run").click()
    first.waits_for("Finding regions")
    second.page.locator("#run").click()
    second.waits_for("Waiting for a free place")
    second.waits_for("queue", "#queue")
    third.page.locator("#run").click()
    third.waits_for("its waiting line is full")
    third.page.locator("#run").wait_for(timeout=PATIENCE_MS)
    first.wait_for_result()
    for visitor in visitors:
        next(visitor, None)
    page.close(verbose=False)


def test_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.page
    visit.run()
    stage = page.locator(".ov-stage")
    stage.focus()
    plain = visit.pixels()
    page.keyboard.press("]")
    assert page.locator(".ov-opacity input").input_value() == "65"
    assert visit.pixels() != plain
    page.keyboard.press("ArrowRight")
    assert visit.status.startswith("Region #")
    page.keyboard.press("Enter")
    assert page.locator(".ov-region").is_visible()
    page.keyboard.press(" ")
    assert page.locator(".ov-legend tbody input:not(:checked)").count() == 1
    page.keyboard.press("c")
    assert page.locator("[data-mode=vanilla]").get_attribute("aria-checked") == "true"
    page.keyboard.press("Escape")
    assert not page.locator(".ov-region").is_visible()


def test_everything_can_be_reached_by_tab(visit: Visit) -> None:
    visit.wait_for_result()
    wanted = {"words", "distractors", "what-else", "run", "examples", "settings", "viewer", "format", "make"}
    seen: set[str] = set()
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        inside: list[str] = visit.page.evaluate(
            """() => {
              const ids = [];
              for (let node = document.activeElement; node; node = node.parentElement) ids.push(node.id);
              return ids;
            }"""
        )
        seen |= wanted & set(inside)
    assert seen == wanted


def test_a_phone_needs_no_sideways_scrolling(phone: Visit) -> None:
    phone.run()
    assert phone.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    box = phone.page.locator(".ov-canvas").bounding_box()
    assert box is not None and box["width"] > 300
    places = ("#photo", "#words", "#run", ".ov-stage", ".ov-legend", "#settings")
    order = [phone.page.locator(place).bounding_box()["y"] for place in places]  # type: ignore[index]
    assert order == sorted(order)
    phone.page.locator("[data-mode=split]").tap()
    assert phone.page.locator(".ov-split").is_visible()
    phone.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_dark_is_dark(at_night: Visit) -> None:
    def brightness(selector: str, what: str) -> float:
        told: str = at_night.page.evaluate(
            "([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what]
        )
        return sum(map(float, re.findall(r"[\d.]+", told)[:3]))

    assert brightness("body", "backgroundColor") < 150
    assert brightness(".ov-status", "color") > 500


def test_two_visitors_never_see_each_others_results(visit: Visit, phone: Visit, tmp_path: Path) -> None:
    """At once, with different photos: in the picture, in the legend, and in what they take away."""
    visit.choose(EXAMPLES / "cow.jpg")
    phone.choose(EXAMPLES / "coffee.jpg")
    visit.type("cow, grass")
    phone.type("cup, table")
    visit.page.locator("#run").click()
    phone.page.locator("#run").click()
    for one in (visit, phone):
        one.wait_for_result()
    for one, theirs in ((visit, "cup"), (phone, "cow")):
        assert theirs not in one.legend
    assert visit.pixels() != phone.pixels()
    for number, (one, size) in enumerate(((visit, (1024, 768)), (phone, (600, 400)))):
        with zipfile.ZipFile(_zip(one, tmp_path / str(number))) as archive:
            told = json.loads(archive.read("result.json"))
            assert Image.open(io.BytesIO(archive.read("label_map.png"))).size == size
        assert (told["width"], told["height"]) == size


def test_a_link_brings_words_and_settings_back(visit: Visit) -> None:
    visit.type("cow, grass & <clover>")
    visit.page.locator("#settings button").first.click()
    visit.page.get_by_label("Compare with vanilla CLIP").uncheck()
    visit.page.locator("#link").click()
    visit.page.wait_for_function("() => location.search.includes('words=')")
    address = visit.page.url
    assert "strictness=0" in address and "compare=false" in address and "photo" not in address
    visit.page.goto(address.replace("strictness=0", "strictness=1.5"))
    visit.page.wait_for_function(
        "() => document.querySelector('#words textarea')?.value === 'cow, grass & <clover>'",
        timeout=PATIENCE_MS,
    )
    visit.page.locator("#settings button").first.click()
    assert not visit.page.get_by_label("Compare with vanilla CLIP").is_checked()
    assert visit.page.locator("#settings input[type=number]").first.input_value() == "1.5"


def test_a_link_with_nonsense_changes_nothing(visit: Visit, url: str) -> None:
    visit.page.goto(f"{url}?model=../../x&strictness=1e9&merge=%3Cb%3E&max_side_px=7&words=cow")
    visit.page.wait_for_function(
        "() => document.querySelector('#words textarea')?.value === 'cow'", timeout=PATIENCE_MS
    )
    visit.page.locator("#settings button").first.click()
    assert visit.page.locator("#settings input[type=number]").first.input_value() == "0"
    assert visit.complaints == []


def test_a_photo_dropped_on_the_picture_is_taken(visit: Visit) -> None:
    visit.wait_for_result()
    content = list((EXAMPLES / "coffee.jpg").read_bytes())
    dropped = visit.page.evaluate_handle(
        """(content) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(content)], "dropped.jpg", { type: "image/jpeg" }));
          return files;
        }""",
        content,
    )
    for kind in ("dragenter", "dragover"):
        visit.page.dispatch_event(".ov-stage", kind, {"dataTransfer": dropped})
    assert visit.page.locator(".ov-drop").is_visible()
    visit.page.dispatch_event(".ov-stage", "drop", {"dataTransfer": dropped})
    visit.page.wait_for_selector(".ov-stage[data-state=chosen]", timeout=PATIENCE_MS)
    assert not visit.page.locator(".ov-drop").is_visible()


def test_several_photos_become_one_zip(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.open(EXAMPLES / "cow.jpg").resize((320, 240)).save(tmp_path / "cow.png")
    visit.type("cow, grass")
    visit.page.locator("#batch button").first.click()
    visit.page.locator("#batch-files input[type=file]").set_input_files(
        [tmp_path / "broken.jpg", tmp_path / "cow.png"]
    )
    visit.page.locator("#batch-files a, #batch-files .file-preview").first.wait_for(timeout=PATIENCE_MS)
    visit.page.locator("#batch-run").click()
    visit.page.wait_for_function(
        "() => document.querySelector('#batch-told textarea').value.includes('2 of 2 photos done')",
        timeout=PATIENCE_MS,
    )
    assert "broken.jpg: " in visit.page.locator("#batch-told textarea").input_value()
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        visit.page.locator("#batch-results a").first.click()
    names = zipfile.ZipFile(coming.value.path()).namelist()
    assert "002-cow/overlay.png" in names and "failures.txt" in names


def _zip(visit: Visit, folder: Path) -> Path:
    with visit.page.expect_download(timeout=PATIENCE_MS) as coming:
        visit.page.locator("#make").click()
    coming.value.save_as(folder / "result.zip")
    return folder / "result.zip"


def _names_in_zip(visit: Visit, folder: Path) -> set[str]:
    with zipfile.ZipFile(_zip(visit, folder)) as archive:
        return set(archive.namelist())


def _over(visit: Visit, name: str) -> None:
    """Moves the pointer over the picture until the tip shows the name."""
    box = visit.page.locator(".ov-canvas").bounding_box()
    assert box is not None
    for y in (0.5, 0.4, 0.6, 0.3, 0.7):
        for x in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
            visit.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if name in visit.page.locator(".ov-tip").inner_text():
                return
    raise AssertionError(f"{name} is nowhere under the pointer")
