"""Crops that differ from a known one in a box each have the maps that they have alone."""

from __future__ import annotations

import pytest
import torch

from ovseg_demo.clip.changed_crops import Box, Reach, changed_maps
from ovseg_demo.clip.mini import MiniConfig, MiniImageTower

CELLS: list[Box] = [(32 * x, 32 * y, 32 * x + 32, 32 * y + 32) for y in range(7) for x in range(7)]
ODD: list[Box] = [
    (0, 0, 1, 1),
    (223, 223, 224, 224),
    (61, 3, 63, 190),
    (101, 102, 103, 107),
    (0, 0, 224, 224),
]


@pytest.fixture(scope="module")
def tower() -> MiniImageTower:
    torch.manual_seed(1)
    tower = MiniImageTower(MiniConfig(width=64, layers=1, pooled_branch_width=64)).eval()
    for part in tower.trunk.stem.modules():
        if isinstance(part, torch.nn.Conv2d):  # by default so small that nothing comes through
            torch.nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                torch.nn.init.normal_(part.bias, std=0.3)
    return tower


def changed(boxes: list[Box]) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop, and crops that differ from it in a box each."""
    torch.manual_seed(2)
    crop = torch.randn(1, 3, 224, 224)
    crops = crop.repeat(len(boxes), 1, 1, 1)
    for one, (left, top, right, bottom) in zip(crops, boxes, strict=True):
        one[:, top:bottom, left:right] = torch.randn(3, bottom - top, right - left)
    return crop, crops


@torch.no_grad()
@pytest.mark.parametrize("boxes", [CELLS, ODD, ODD[2:4]], ids=["cells", "odd", "two"])
def test_the_maps_are_those_of_the_whole_crops(tower: MiniImageTower, boxes: list[Box]) -> None:
    crop, crops = changed(boxes)
    known = tower.stem_early(crop)
    found = tower.stem_early_changed(known, crops, boxes)
    expected = tower.stem_early(crops)
    assert (expected - known).abs().amax(dim=(1, 2, 3)).min() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(tower.stem_late(found), tower.stem(crops), rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("reach", [Reach(4, 6, 16), Reach(4, 10, 12)], ids=["before", "after"])
def test_a_smaller_reach_would_be_wrong(tower: MiniImageTower, reach: Reach) -> None:
    crop, crops = changed(CELLS)
    known = tower.stem_early(crop)
    found = changed_maps(tower.stem_early, reach, known, crops, CELLS)
    assert (found - tower.stem_early(crops)).abs().max() > 1e-4


@torch.no_grad()
def test_no_crops_have_no_maps(tower: MiniImageTower) -> None:
    known = tower.stem_early(torch.randn(1, 3, 224, 224))
    assert tower.stem_early_changed(known, torch.zeros(0, 3, 224, 224), []).shape == (0, 24, 56, 56)
