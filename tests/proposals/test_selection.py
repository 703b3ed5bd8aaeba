"""Which masks are kept: stability, duplicates, uncovered_patches, and the way back to full size."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_demo.proposals.selection import (
    mask_iou,
    non_max_suppression,
    stability,
    uncovered_patches,
    upsample,
)


def test_a_steep_mask_is_stable_and_a_shallow_one_is_not() -> None:
    slope = torch.linspace(-1, 1, 64).expand(64, 64)
    steep, shallow, absent = stability(torch.stack([slope * 100, slope * 2, slope - 9]))
    assert steep > 0.95
    assert 0.2 < shallow < 0.4
    assert absent == 0


def patches(seed: int, count: int) -> np.ndarray:
    """(count, 12, 14) random rectangles, some of them alike and some empty."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, 12, 14), dtype=bool)
    for mask in masks:
        top, left, height, width = random.integers(0, 7, 4)
        mask[top : top + height, left : left + width] = True
    return masks


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_mask_iou_is_intersection_over_union(seed: int) -> None:
    masks = patches(seed, 5)
    iou = mask_iou(torch.from_numpy(masks))
    for i, a in enumerate(masks):
        for j, b in enumerate(masks):
            union = (a | b).sum()
            assert iou[i, j] == np.float32((a & b).sum() / max(union, 1))


def test_of_duplicates_the_best_is_kept() -> None:
    iou = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]], dtype=np.float32)
    assert non_max_suppression(iou, np.array([0.5, 0.8, 0.7], dtype=np.float32), 0.7) == [1, 2]
    assert non_max_suppression(iou, np.array([0.5, 0.5, 0.5], dtype=np.float32), 0.7) == [0, 2]
    assert non_max_suppression(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.float32), 0.7) == []


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_what_is_kept_is_free_of_duplicates_and_what_is_not_has_a_better_one(
    seed: int, threshold: float
) -> None:
    iou = mask_iou(torch.from_numpy(patches(seed, 6)))
    score = np.linspace(0, 1, 6, dtype=np.float32)
    kept = non_max_suppression(iou, score, threshold)
    assert all(iou[i, j] <= threshold for i in kept for j in kept if i != j)
    for index in set(range(6)) - set(kept):
        assert any(iou[index, other] > threshold and score[other] > score[index] for other in kept)


def test_gaps_are_the_large_connected_leftovers_without_thin_seams() -> None:
    covered = np.ones((40, 60), dtype=bool)
    covered[2:12, 2:12] = False
    covered[20:38, 20:50] = False
    covered[:, 55] = False  # a seam
    covered[30:33, 2:5] = False  # too small
    large, small = uncovered_patches(covered, min_area=50)
    assert np.argwhere(large).min(axis=0).tolist() == [20, 20]
    assert np.argwhere(small).max(axis=0).tolist() == [11, 11]
    assert not (large | small)[covered].any()


def test_a_covered_image_has_no_gaps() -> None:
    assert uncovered_patches(np.ones((8, 9), dtype=bool), min_area=1).shape == (0, 8, 9)


def test_upsampling_puts_a_mask_where_it_belongs() -> None:
    logits = torch.full((20, 16, 24), -4.0)
    logits[:, 4:8, 12:18] = 4.0
    masks = upsample(logits, 160, 240)
    assert masks.shape == (20, 160, 240)
    assert masks.dtype == np.bool_
    rows, columns = np.nonzero(masks[19])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (40, 80, 120, 180)
    assert upsample(logits[:0], 160, 240).shape == (0, 160, 240)
