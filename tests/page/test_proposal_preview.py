"""What is drawn while a visitor waits: every region once, in few bytes, and nothing of another photo."""

from __future__ import annotations

import json
import re
import time

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.page.proposal_preview import ProposalPreview, outline
from ovseg_demo.progress import Progress


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (96, 128)) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def finding(*masks: NDArray[np.bool_]) -> Progress:
    return Progress("propose", 0.5, "Finding regions", np.stack(masks))


def numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", path)]


def test_before_anything_is_found_there_is_nothing_to_draw() -> None:
    preview = ProposalPreview()
    preview.take(Progress("read", 0.0, "Reading the photo"))
    preview.take(Progress("propose", 0.1, "Finding regions"))
    assert preview.payload() is None and not preview.growing


def test_what_is_found_is_drawn_and_what_is_new_is_known() -> None:
    preview = ProposalPreview()
    preview.take(finding(box(10, 30, 10, 30)))
    first = preview.payload()
    assert first is not None and (len(first["paths"]), first["fresh"]) == (1, 1) and preview.growing
    preview.take(finding(box(50, 80, 10, 30)))
    preview.take(finding(box(50, 80, 60, 90)))
    second = preview.payload()
    assert second is not None and (len(second["paths"]), second["fresh"]) == (3, 2)
    # Gradio sends what was added to a list, as long as what was there stays.
    assert second["paths"][:1] == first["paths"]


def test_nearly_the_same_mask_is_drawn_once() -> None:
    preview = ProposalPreview()
    preview.take(finding(box(10, 60, 10, 60), box(10, 60, 10, 62)))
    preview.take(finding(box(11, 60, 10, 60), box(10, 30, 10, 30)))
    assert preview.payload() is not None
    assert len(preview) == 2


def test_a_path_runs_around_its_mask() -> None:
    path = outline(box(10, 30, 20, 50))
    assert path.startswith("M") and path.endswith("Z")
    x, y = numbers(path)[::2], numbers(path)[1::2]
    # Four units across a pixel, through the middles of the outermost ones.
    assert (min(x), max(x), min(y), max(y)) == (82, 198, 42, 118)


def test_the_edge_of_the_photo_is_no_outline() -> None:
    path = outline(box(0, 96, 0, 64))
    x, y = numbers(path)[::2], numbers(path)[1::2]
    assert min(x) < 0 and min(y) < 0 and max(y) > 4 * 96
    assert 0 < max(x) < 4 * 128


def test_a_hole_and_a_second_part_have_their_own_lines() -> None:
    mask = box(10, 60, 10, 60) | box(70, 90, 100, 120)
    mask[25:40, 25:40] = False
    assert outline(mask).count("M") == 3


def test_specks_are_left_out() -> None:
    assert outline(box(5, 6, 5, 6)) == ""
    assert outline(np.zeros((96, 128), dtype=bool)) == ""
    preview = ProposalPreview()
    preview.take(finding(box(5, 6, 5, 6)))
    assert preview.payload() is None


def test_all_regions_take_the_place_of_what_was_found_on_the_way() -> None:
    preview = ProposalPreview()
    preview.take(finding(box(10, 30, 10, 30), box(50, 80, 60, 90)))
    preview.payload()
    larger = box(20, 60, 20, 60, (192, 256))
    preview.take(Progress("embed", 0.7, "Looking at 1 regions", larger[None]))
    drawn = preview.payload()
    assert drawn is not None and not preview.growing
    assert drawn == {"width": 1024, "height": 768, "paths": [outline(larger)], "fresh": 0}
    assert preview.payload() == drawn


def test_a_photo_that_is_begun_again_is_drawn_anew() -> None:
    preview = ProposalPreview()
    preview.take(finding(box(10, 30, 10, 30)))
    assert preview.payload() is not None
    preview.take(Progress("read", 0.0, "Reading the photo"))
    assert preview.payload() is None


def test_many_masks_are_few_bytes_and_little_time() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:192, :256]
    preview, spent = ProposalPreview(), 0.0
    for _ in range(20):
        blobs = [
            (x - a) ** 2 + (y - b) ** 2 < r**2 for a, b, r in rng.uniform((0, 0, 5), (256, 192, 60), (24, 3))
        ]
        began = time.process_time()
        preview.take(finding(*blobs))
        drawn = preview.payload()
        spent += time.process_time() - began
    assert drawn is not None and 100 < len(drawn["paths"]) <= 200
    assert len(json.dumps(drawn)) < 60_000
    assert spent < 4.0
