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
    )
    height, width = photo
    for region in region_results(proposals, (height, width, 3), Vocabulary.parse("dog"), merged):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
