"""Proposals are computed once and kept for good; true masks come in the order that is told."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg_demo.proposals import Proposals, propose
from train.data.truth import Segment
from train.evaluation.proposers import CachedProposer, GroundTruthProposer


class Halves:
    """Proposes the left and the right half, and counts how often it had to."""

    name = "halves"
    weights_sha256 = ""

    def __init__(self, plan: str = "two") -> None:
        self.plan = plan
        self.asked = 0

    def stream(self, image: np.ndarray) -> Generator[float, None, Proposals]:
        self.asked += 1
        yield 0.5
        masks = np.zeros((2, *image.shape[:2]), dtype=bool)
        masks[0, :, : image.shape[1] // 2] = True
        masks[1] = ~masks[0]
        return Proposals.of(masks, np.array([0.9, 0.8], dtype=np.float32))


class Nothing(Halves):
    """Proposes nothing."""

    def stream(self, image: np.ndarray) -> Generator[float, None, Proposals]:
        self.asked += 1
        yield 0.5
        return Proposals.empty(*image.shape[:2])


IMAGE = np.random.default_rng(0).integers(0, 256, (13, 10, 3), dtype=np.uint8)


def assert_equal(first: Proposals, second: Proposals) -> None:
    for name in ("masks", "quality", "boxes"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [Halves, Nothing])
def test_kept_proposals_come_back_in_another_run(tmp_path: Path, kind: type[Halves]) -> None:
    first = propose(CachedProposer(kind(), tmp_path / "kept"), IMAGE)
    again = kind()
    assert_equal(propose(CachedProposer(again, tmp_path / "kept"), IMAGE), first)
    assert again.asked == 0


def test_the_last_photo_is_computed_once_even_without_a_folder() -> None:
    proposer = Halves()
    kept = CachedProposer(proposer)
    assert_equal(propose(kept, IMAGE), propose(kept, IMAGE))
    assert proposer.asked == 1
    propose(kept, IMAGE[::-1])
    assert proposer.asked == 2


def test_other_pixels_or_other_numbers_are_other_proposals(tmp_path: Path) -> None:
    propose(CachedProposer(Halves(), tmp_path), IMAGE)
    for proposer, image in (
        (Halves(), IMAGE + 1),
        (Halves(), IMAGE.swapaxes(0, 1)),
        (Halves("three"), IMAGE),
    ):
        propose(CachedProposer(proposer, tmp_path), np.ascontiguousarray(image))
        assert proposer.asked == 1


def test_other_weights_are_other_proposals(tmp_path: Path) -> None:
    for weights in ("a" * 64, "b" * 64):
        proposer = Halves()
        proposer.weights_sha256 = weights
        kept = CachedProposer(proposer, tmp_path)
        propose(kept, IMAGE)
        assert proposer.asked == 1
        assert kept.weights_sha256 == weights and kept.plan == "two"


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    first = propose(CachedProposer(Halves(), tmp_path), IMAGE)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damage in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(damage)
        proposer = Halves()
        assert_equal(propose(CachedProposer(proposer, tmp_path), IMAGE), first)
        assert proposer.asked == 1
    assert file.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_two_runs_may_keep_the_same_photo_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.savez_compressed

    def save_after_another_has(*args: Any, **arrays: Any) -> None:
        monkeypatch.setattr(np, "savez_compressed", save)
        propose(CachedProposer(Halves(), tmp_path), IMAGE)
        save(*args, **arrays)

    monkeypatch.setattr(np, "savez_compressed", save_after_another_has)
    first = propose(CachedProposer(Halves(), tmp_path), IMAGE)
    again = Halves()
    assert_equal(propose(CachedProposer(again, tmp_path), IMAGE), first)
    assert again.asked == 0 and len(list(tmp_path.iterdir())) == 1


def test_closing_the_stream_stops_the_work(tmp_path: Path) -> None:
    steps = CachedProposer(Halves(), tmp_path).stream(IMAGE)
    assert next(steps) == 0.5
    steps.close()
    assert list(tmp_path.iterdir()) == []


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


def test_true_masks_are_proposed_large_ones_first_with_their_classes() -> None:
    segments = [
        Segment(box(13, 10, slice(0, 2), slice(0, 2)), 4),
        Segment(box(13, 10, slice(0, 9), slice(0, 9)), 7),
        Segment(box(13, 10, slice(0, 0), slice(0, 9)), 1),  # without a pixel
        Segment(box(13, 10, slice(5, 7), slice(5, 7)), 2),
    ]
    true_masks = GroundTruthProposer()
    assert true_masks.set_truth(segments, (13, 10)) == [7, 4, 2]
    found = propose(true_masks, IMAGE)
    np.testing.assert_array_equal(found.masks, np.stack([segments[i].mask for i in (1, 0, 3)]))


def test_true_masks_follow_the_photo_to_its_working_size() -> None:
    true_masks = GroundTruthProposer()
    segments = [
        Segment(box(26, 20, slice(0, 26), slice(0, 10)), 3),
        Segment(box(26, 20, slice(0, 1), slice(0, 1)), 5),
    ]
    assert true_masks.set_truth(segments, (13, 10)) == [3]  # the single pixel is lost
    np.testing.assert_array_equal(propose(true_masks, IMAGE).masks[0], box(13, 10, slice(0, 13), slice(0, 5)))
    with pytest.raises(ValueError, match="truth shown"):
        propose(true_masks, IMAGE[:5])


def test_a_photo_without_segments_has_no_proposals() -> None:
    true_masks = GroundTruthProposer()
    assert true_masks.set_truth([], (13, 10)) == []
    assert len(propose(true_masks, IMAGE)) == 0
