"""The default proposer on real and on hopeless pictures, with its real weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ovseg_demo.errors import CorrectionError, ProposalError
from ovseg_demo.imaging import load_image, resize_to_side
from ovseg_demo.proposals import (
    Box,
    Point,
    Prompt,
    Proposals,
    ProposalStep,
    Proposer,
    load_proposer,
    promptable,
    propose,
)
from ovseg_demo.proposals.grid import grid_shape, spread_points

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def quick() -> Proposer:
    """Small input and few points: what is tested here does not depend on either."""
    return load_proposer("mobile-sam", size=256, density="low")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return resize_to_side(load_image(EXAMPLES / "dogs.jpg"), 320)


@pytest.fixture(scope="module")
def found(quick: Proposer, photo: np.ndarray) -> Proposals:
    return propose(quick, photo)


def test_a_photo_is_covered_by_masks_of_its_own_size(found: Proposals, photo: np.ndarray) -> None:
    assert len(found) >= 5
    assert found.masks.shape[1:] == photo.shape[:2]
    assert found.masks.any(axis=0).mean() > 0.8
    assert ((found.quality > 0) & (found.quality <= 1)).all()
    area = found.masks.sum(axis=(1, 2))
    assert (np.diff(area) <= 0).all()
    for mask, (left, top, right, bottom) in zip(found.masks, found.boxes, strict=True):
        assert mask[top:bottom, left:right].sum() == mask.sum()


def test_the_same_photo_gives_the_same_masks(quick: Proposer, photo: np.ndarray, found: Proposals) -> None:
    again = propose(quick, photo)
    np.testing.assert_array_equal(again.masks, found.masks)
    np.testing.assert_array_equal(again.quality, found.quality)


@pytest.mark.parametrize("enough", [1, 1000])
def test_points_are_left_out_where_enough_prompts_have_found_masks(
    quick: Proposer, photo: np.ndarray, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(quick.plan, enough=enough, refine=0, batch=1)
    monkeypatch.setattr(quick, "plan", plan)
    pressed: list[np.ndarray] = []
    decode = quick.decoder.decode
    monkeypatch.setattr(
        quick.decoder, "decode", lambda image, points: pressed.append(points.numpy()) or decode(image, points)
    )
    found = [step.masks for step in quick.stream(photo) if isinstance(step, ProposalStep)]
    grid = spread_points(*grid_shape(plan.coarse, *photo.shape[:2]))
    assert len(found) == len(pressed) and (2 < len(found) < len(grid) or enough == 1000)
    hits = np.zeros(found[0].shape[1:], int)
    for (point,), masks in zip(pressed, found, strict=True):
        column, row = ((point + 0.5) / 4).astype(int)  # a mask has a quarter of the encoder's size
        assert hits[row, column] < enough
        hits += masks.any(axis=0)
    assert len(found) == len(grid) or enough == 1


def test_the_progress_rises_and_closing_stops_the_work(quick: Proposer, photo: np.ndarray) -> None:
    steps = quick.stream(photo)
    told = [next(steps) for _ in range(4)]
    fractions = [step.fraction if isinstance(step, ProposalStep) else step for step in told]
    assert fractions[0] == 0
    assert fractions == sorted(set(fractions))
    assert fractions[-1] < 1
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def test_masks_are_yielded_as_they_are_found(quick: Proposer, photo: np.ndarray, found: Proposals) -> None:
    told = [step.masks for step in quick.stream(photo) if isinstance(step, ProposalStep)]
    assert len(told) > 2
    small = np.concatenate([masks for masks in told if masks is not None])
    assert small.dtype == np.bool_ and max(small.shape[1:]) == 256 // 4
    # A mask is enlarged by interpolation between neighbouring cells, so it holds every pixel whose cell and
    # cells around it were told, and none without such a cell. Leftovers, of quality 0.3, are told at the end.
    cells, size = np.ones((3, 3), np.uint8), photo.shape[1::-1]
    inner = [resized(cv2.erode(mask.astype(np.uint8), cells), size) for mask in small]
    outer = [resized(cv2.dilate(mask.astype(np.uint8), cells), size) for mask in small]
    prompted = found.masks[found.quality > 0.5]
    assert len(prompted) > 2
    for mask in prompted:
        assert any(
            not (least & ~mask).any() and not (mask & ~most).any()
            for least, most in zip(inner, outer, strict=True)
        )


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (2, 3), (37, 501)])
def test_pictures_of_any_shape_give_masks_of_that_shape(quick: Proposer, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    proposals = propose(quick, image)
    assert proposals.masks.shape[1:] == shape
    assert proposals.masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_colour_is_no_error(quick: Proposer, value: int) -> None:
    proposals = propose(quick, np.full((60, 80, 3), value, dtype=np.uint8))
    assert proposals.masks.shape[1:] == (60, 80)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), dtype=np.uint8), r"not uint8 \(4, 5\)"),
        (np.zeros((4, 5, 4), dtype=np.uint8), r"not uint8 \(4, 5, 4\)"),
        (np.zeros((4, 5, 3), dtype=np.float32), r"not float32 \(4, 5, 3\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), r"at least one pixel.*\(0, 5, 3\)"),
        ("photo.jpg", "not str"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(quick: Proposer, image: np.ndarray, message: str) -> None:
    with pytest.raises(ProposalError, match=message):
        propose(quick, image)


def test_loading_pulls_in_neither_a_server_nor_a_warning() -> None:
    code = (
        "import sys; from ovseg_demo.proposals import load_proposer; "
        "assert 'torch' not in sys.modules, 'torch is imported before a proposer is loaded'; "
        "load_proposer('mobile-sam'); "
        "found = {'fastapi', 'uvicorn', 'hydra', 'gradio'} & set(sys.modules); "
        "assert not found, found"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


# --- clicks and boxes -----------------------------------------------------------------------------------


def prompt(photo: np.ndarray, points: list[Point], box: Box | None = None) -> Prompt:
    return Prompt.of(points, box, width=photo.shape[1], height=photo.shape[0])


def test_a_click_gives_the_regions_that_hold_it_and_a_second_one_takes_some_away(
    quick: Proposer, photo: np.ndarray, found: Proposals
) -> None:
    proposer = promptable(quick)
    assert found.embedding is not None
    np.testing.assert_allclose(proposer.embed_image(photo), found.embedding)
    clicked = found.masks[found.area_fraction < 0.3][0]
    y, x = (int(values[len(values) // 2]) for values in np.nonzero(clicked))
    size = (2 * photo.shape[0], 2 * photo.shape[1])
    meant = proposer.prompt(found.embedding, prompt(photo, [(x, y, True)]), size)
    assert 1 <= len(meant.masks) <= 3 and meant.masks.shape[1:] == size
    assert meant.masks[0, 2 * y, 2 * x]
    assert (np.diff(meant.quality) <= 0).all()
    out_y, out_x = (int(values[0]) for values in np.nonzero(meant.masks[0]))
    cut = proposer.prompt(found.embedding, prompt(photo, [(x, y, True), (out_x / 2, out_y / 2, False)]), size)
    assert not (cut.masks[0] == meant.masks[0]).all()


def test_a_box_around_a_region_gives_the_region(quick: Proposer, photo: np.ndarray, found: Proposals) -> None:
    proposer = promptable(quick)
    assert found.embedding is not None
    best = int(np.argmax(found.quality * (found.area_fraction > 0.05)))
    left, top, right, bottom = (float(side) for side in found.boxes[best])
    meant = proposer.prompt(found.embedding, prompt(photo, [], (left, top, right, bottom)), photo.shape[:2])
    overlap = np.logical_and(meant.masks[0], found.masks[best]).sum()
    assert overlap / np.logical_or(meant.masks[0], found.masks[best]).sum() > 0.7


@pytest.mark.parametrize(
    ("points", "box", "why"),
    [
        ([], None, "no click on the region itself"),
        ([(5, 5, False)], None, "no click on the region itself"),
        ([(400, 5, True)], None, "The click 400, 5 lies outside the photo of 213 x 320"),
        ([(-1, 5, True)], None, "lies outside the photo"),
        ([(float("nan"), 5, True)], None, "finite numbers"),
        ([("a", 5, True)], None, "given by numbers"),
        ([(5, 5, True)] * 65, None, "65 clicks and at most 64"),
        ([], (5, 5, 5, 50), "has no area"),
        ([], (-50, -50, -5, -5), "has no area"),
        ([], (5, 5, 5.5, 5.5), "has no area"),
    ],
)
def test_clicks_that_cannot_be_used_are_told_in_one_sentence(
    photo: np.ndarray, points: list[Point], box: Box | None, why: str
) -> None:
    with pytest.raises(CorrectionError, match=why):
        prompt(photo, points, box)
