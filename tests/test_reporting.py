"""Facts about regions are in pixels of the photo, at any working size."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.merging import Merged
from ovseg_demo.proposals import Proposals
from ovseg_demo.reporting import region_results
from ovseg_demo.vocabulary import Vocabulary


@pytest.mark.parametrize("photo", [(3, 5), (7, 4), (64, 64), (200, 90)])
def test_no_box_leaves_the_photo(photo: tuple[int, int]) -> None:
    masks = np.zeros((3, 64, 64), dtype=np.bool_)
    masks[0] = True
    masks[1, 63, 63] = True
    masks[2, 62:, :1] = True
    proposals = Proposals.of(masks, np.ones(3, np.float32))
    merged = Merged(
        label_map=np.ones((64, 64), np.uint16),
        region_map=np.ones((64, 64), np.uint16),
        region_class=np.ones(3, np.int64),
        region_confidence=np.ones(3, np.float32),
        found=np.ones(1, np.bool_),
        confidence=np.ones(1, np.float32),
        probabilities=np.ones((3, 1), np.float32),
        closest_hidden=("",) * 3,
    )
    height, width = photo
    for region in region_results(proposals, (height, width, 3), Vocabulary.parse("dog"), merged):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_only_an_unassigned_region_says_what_beat_the_typed_words() -> None:
    merged = Merged(
        label_map=np.ones((8, 8), np.uint16),
        region_map=np.ones((8, 8), np.uint16),
        region_class=np.array([0, 1]),
        region_confidence=np.ones(2, np.float32),
        found=np.ones(1, np.bool_),
        confidence=np.ones(1, np.float32),
        probabilities=np.ones((2, 1), np.float32),
        closest_hidden=("countertop", "plate"),
    )
    proposals = Proposals.of(np.ones((2, 8, 8), dtype=np.bool_), np.ones(2, np.float32))
    told = [r.to_json() for r in region_results(proposals, (8, 8, 3), Vocabulary.parse("pizza"), merged)]
    assert [one["closest_hidden"] for one in told] == ["countertop", ""]
