"""A visitor's requests and the page's answers: suggestions, Stop, waiting, errors, links, batches."""

from __future__ import annotations

import io
import json
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

    from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow


def test_suggestions_distractors_and_strictness_are_scored_at_once(visit: Visit, watched: Watched) -> None:
    page = visit.page
    visit.run(words="airplane")
    assert page.locator(".ov-none").is_visible() and "airplane" in page.locator(".ov-missing").inner_text()
    ended = watched.ended
    page.locator(".ov-none button").click()
    page.locator("#suggestions button").first.wait_for(timeout=PATIENCE_MS)
    suggested = page.locator("#suggestions button").first.inner_text().strip()
    page.locator("#suggestions button").first.click()
    visit.waits_for(suggested, ".ov-facts")
    visit.waits_for_other_words()
    assert page.locator("#words textarea").input_value() == f"airplane, {suggested}"

    page.locator("#distractors").click()
    page.wait_for_function("() => document.querySelector('#words textarea').value.split(',').length === 7")
    page.wait_for_function(
        "() => document.querySelectorAll('.ov-missing s, .ov-legend tbody tr').length === 7",
        timeout=PATIENCE_MS,
    )

    found = page.locator(".ov-legend tbody tr").count()
    page.locator("#strictness input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "(found) => document.querySelectorAll('.ov-legend tbody tr').length > found",
        arg=found,
        timeout=PATIENCE_MS,
    )
    assert watched.ended == ended


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
    assert "/" not in visit.status and "\\" not in visit.status  # no folder of the server


@pytest.mark.parametrize("who", ["visit", "at_night", "phone"])
def test_regions_are_outlined_on_the_photo_while_they_are_found(
    who: str, request: pytest.FixtureRequest, new_to_all: ModelPool
) -> None:
    one: Visit = request.getfixturevalue(who)
    one.choose(EXAMPLES / "pagoda.jpg")
    one.type("pagoda, sky")
    bare = one.picture()
    asked: list[str] = []
    one.page.on("request", lambda r: asked.append(r.url) if "/queue/data" not in r.url else None)
    one.page.locator("#run").click()
    one.waits_for("so far")
    first = one.picture()
    assert 0.001 < _changed(bare, first) < 0.5
    # Nothing is fetched for it: one request, and its answer. The photo itself is kept in the browser, and
    # while something runs the page asks whether the server is still there.
    own = ("data:", "blob:")
    fetched = [url for url in asked if not url.startswith(own) and "/file=" not in url]
    assert len([url for url in fetched if not url.endswith("/healthz")]) == 1, fetched
    one.waits_for("Looking at")
    assert 0.001 < _changed(bare, one.picture()) < 0.5
    assert _changed(first, one.picture()) > 0.001
    one.wait_for_result()
    assert _changed(bare, one.picture()) > 0.3  # the words colour a large part of the photo
    assert one.complaints == []


def _changed(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that differ by more than a JPEG does."""
    return float((np.abs(one - other).max(axis=2) > 40).mean())


def test_stop_brings_back_what_was_there(visit: Visit, pool: ModelPool) -> None:
    visit.run()
    result, legend = visit.pixels(), visit.legend
    pool.get(pool.default).photos.clear()  # as if others had asked for photos meanwhile
    visit.page.locator("#run").click()
    visit.waits_for("so far")
    assert visit.pixels() != result and not visit.page.locator(".ov-legend").is_visible()
    visit.page.locator("#stop").click()
    visit.waits_for("Stopped; what was there stays")
    assert (visit.pixels(), visit.legend) == (result, legend)
    visit.page.locator("#run").wait_for()


def test_stop_leaves_a_new_photo_bare(visit: Visit, tmp_path: Path) -> None:
    Image.open(EXAMPLES / "pagoda.jpg").transpose(Image.Transpose.ROTATE_90).save(tmp_path / "aside.png")
    visit.choose(tmp_path / "aside.png")
    bare = visit.picture()
    visit.type("pagoda")
    visit.page.locator("#run").click()
    visit.waits_for("so far")
    visit.page.locator("#stop").click()
    visit.waits_for("Stopped")
    assert _changed(bare, visit.picture()) < 0.001
    assert visit.complaints == []


def test_run_pressed_right_after_stop_runs(visit: Visit, new_to_all: ModelPool) -> None:
    visit.choose(EXAMPLES / "pagoda.jpg")
    visit.type("pagoda, sky")
    visit.page.locator("#run").click()
    visit.waits_for("so far")
    visit.page.locator("#stop").click()
    visit.page.locator("#run").click()  # the server has not noticed the Stop yet
    visit.wait_for_result()
    assert "pagoda" in visit.legend
    assert visit.complaints == []


def test_stop_stops_and_run_works_again(visit: Visit, watched: Watched, tmp_path: Path) -> None:
    mirrored = tmp_path / "street.png"  # analysed by no other test
    Image.open(EXAMPLES / "street.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    visit.choose(mirrored)
    visit.type("car, building")
    stopped, ended = watched.stopped, watched.ended
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    with visit.page.expect_response(lambda r: r.url.endswith("/cancel"), timeout=PATIENCE_MS):
        visit.page.locator("#stop").click(timeout=PATIENCE_MS)
        visit.waits_for("Stopped")
    # No later step from the server replaces it.
    visit.page.wait_for_timeout(1000)
    assert visit.status == "Stopped; what was there stays." and visit.page.locator("#run").is_visible()
    for _ in range(100):
        if watched.stopped > stopped:
            break
        visit.page.wait_for_timeout(200)
    assert (watched.stopped, watched.ended) == (stopped + 1, ended)
    visit.page.locator("#run").click()
    visit.wait_for_result()
    assert watched.ended == ended + 1


def test_a_visitor_who_waits_is_told_so(visit: Visit, phone: Visit, tmp_path: Path) -> None:
    for one, flip in ((visit, Image.Transpose.FLIP_TOP_BOTTOM), (phone, Image.Transpose.ROTATE_180)):
        photo = tmp_path / f"{flip.name}.png"
        Image.open(EXAMPLES / "horses.jpg").transpose(flip).save(photo)
        one.choose(photo)
        one.type("horse, sky")
    visit.page.locator("#run").click()
    visit.waits_for("Finding regions")
    phone.page.locator("#run").click()
    phone.waits_for("queue", "#queue")
    phone.waits_for("number 1 of 1 in the line")
    told = phone.page.locator(".ov-status").bounding_box()
    picture = phone.page.locator(".ov-stage").bounding_box()
    assert told is not None and picture is not None
    assert told["height"] >= 20 and told["y"] + told["height"] <= picture["y"]
    for one in (visit, phone):
        one.wait_for_result()


def test_a_full_queue_is_told(
    browser: Browser, pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # When a server ends, Gradio empties its folder, which another server of the machine may be using.
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
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


def test_two_visitors_never_see_each_others_results(visit: Visit, phone: Visit, tmp_path: Path) -> None:
    """Two requests at once, with different photos: picture, legend and downloads are each visitor's own."""
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
        with zipfile.ZipFile(one.take_away(tmp_path / str(number))) as archive:
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
    assert visit.page.locator("#strictness input[type=number]").input_value() == "1.5"


def test_a_link_with_nonsense_changes_nothing(visit: Visit, url: str) -> None:
    visit.page.goto(f"{url}?model=../../x&strictness=1e9&merge=%3Cb%3E&max_side_px=7&words=cow")
    visit.page.wait_for_function(
        "() => document.querySelector('#words textarea')?.value === 'cow'", timeout=PATIENCE_MS
    )
    visit.page.locator("#settings button").first.click()
    assert visit.page.locator("#strictness input[type=number]").input_value() == "0"
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
