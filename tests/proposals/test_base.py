"""Proposals hold together: sorted, boxed, never empty masks, and any K including none."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest

from ovseg_demo.errors import ProposalError
from ovseg_demo.proposals import Proposals, ProposalStep, propose


def masks_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(K, 8, 10) masks that are rectangles: left, top, right, bottom."""
    masks = np.zeros((len(boxes), 8, 10), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_large_masks_come_first_and_empty_ones_are_dropped() -> None:
    small, nothing, large = (9, 7, 10, 8), (0, 0, 0, 0), (1, 2, 7, 8)
    proposals = Proposals.of(masks_of(small, nothing, large), np.array([0.5, 0.9, 1.5], dtype=np.float32))
    assert proposals.boxes.tolist() == [list(large), list(small)]
    assert proposals.quality.tolist() == [1.0, 0.5]
    assert proposals.masks.sum(axis=(1, 2)).tolist() == [36, 1]
    assert (proposals.boxes.dtype, proposals.quality.dtype) == (np.int32, np.float32)


def test_no_masks_keep_the_size_of_the_image() -> None:
    for proposals in (Proposals.empty(8, 10), Proposals.of(masks_of(), np.zeros(0, dtype=np.float32))):
        assert len(proposals) == 0
        assert proposals.masks.shape == (0, 8, 10)
        assert proposals.boxes.shape == (0, 4)


def test_the_best_are_good_and_large_and_stay_sorted() -> None:
    masks = masks_of((0, 0, 10, 8), (0, 0, 5, 4), (0, 0, 3, 3), (0, 0, 1, 1))
    proposals = Proposals.of(masks, np.array([0.1, 0.9, 0.9, 0.9], dtype=np.float32))
    assert proposals.best(2).boxes[:, 2].tolist() == [5, 3]
    assert proposals.best(4) is proposals
    assert len(proposals.best(0)) == 0


def test_parts_that_do_not_fit_together_are_refused() -> None:
    good = Proposals.of(masks_of((0, 0, 2, 2)), np.ones(1, dtype=np.float32))
    with pytest.raises(ProposalError, match="bool array, not uint8"):
        Proposals(good.masks.astype(np.uint8), good.quality, good.boxes)
    with pytest.raises(ProposalError, match="1 masks need 1 qualities"):
        Proposals(good.masks, np.ones(2, dtype=np.float32), good.boxes)
    with pytest.raises(ProposalError, match=r"bool array, not uint8 of shape \(1, 8, 10\)"):
        ProposalStep(0.5, good.masks.astype(np.uint8))
    with pytest.raises(ProposalError, match=r"not bool of shape \(8, 10\)"):
        ProposalStep(0.5, good.masks[0])


class TwoSteps:
    """A proposer without a network."""

    name = "two-steps"

    def __init__(self) -> None:
        self.finished = False

    def stream(self, image: np.ndarray) -> Generator[float, None, Proposals]:
        yield 0.0
        yield 0.5
        self.finished = True
        return Proposals.empty(*image.shape[:2])


def test_propose_runs_to_the_end() -> None:
    proposer = TwoSteps()
    assert len(propose(proposer, np.zeros((4, 5, 3), dtype=np.uint8))) == 0
    assert proposer.finished
