"""The context arm: looks at regions in their photo, the head over them, and what both towers say together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovseg_demo.clip.context import (
    LOOKS,
    ContextConfig,
    ContextHead,
    geometry,
    patch_share,
    photo_input,
    photo_size,
    pool_crop,
    pool_looks,
    pool_map,
    region_cover,
)
from ovseg_demo.clip.mini import CROP_RECIPE

SMALL = ContextConfig(hidden=32, photo_short_px=64, photo_long_px=160)


@pytest.fixture
def head() -> ContextHead:
    torch.manual_seed(0)
    return ContextHead(SMALL).eval()


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (480, 640, (448, 608)),
        (640, 480, (608, 448)),
        (3000, 4000, (448, 608)),
        (300, 3000, (96, 896)),  # the longer side is at most 896
        (3000, 1, (896, 32)),  # and no side vanishes
        (7, 7, (448, 448)),
    ],
)
def test_the_photo_is_seen_at_multiples_of_32(height: int, width: int, size: tuple[int, int]) -> None:
    assert photo_size(height, width, ContextConfig()) == size


def test_the_photo_is_normalised_as_crops_are() -> None:
    grey = np.full((48, 64, 3), 191, dtype=np.uint8)
    photo = photo_input(grey, CROP_RECIPE, SMALL)
    assert photo.shape == (1, 3, 64, 96)
    assert torch.allclose(photo, torch.full((), 0.5), atol=1e-5)


def test_cover_is_the_share_of_each_cell_even_for_a_single_pixel() -> None:
    masks = torch.zeros(3, 128, 64, dtype=torch.bool)
    masks[0] = True
    masks[1, :16, :24] = True
    masks[2, 100, 50] = True
    cover = region_cover(masks, 64, 32)
    assert cover.shape == (3, 4, 2)
    assert torch.equal(cover[0], torch.ones(4, 2))
    assert cover[1].tolist() == [[0.375, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert torch.equal(cover[2] > 0, torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1]]) > 0)
    assert region_cover(masks[:0], 64, 32).shape == (0, 4, 2)


def test_a_map_is_pooled_by_the_share_of_each_cell() -> None:
    features = torch.arange(24.0).reshape(2, 3, 4)
    cover = torch.zeros(2, 3, 4)
    cover[0, 0, 0], cover[0, 2, 3] = 1.0, 0.5
    cover[1, 1, 1] = 0.001  # what is small counts in full
    assert torch.allclose(pool_map(features, cover)[0], (features[:, 0, 0] + features[:, 2, 3] / 2) / 1.5)
    assert torch.allclose(pool_map(features, cover)[1], features[:, 1, 1])


def test_a_crop_is_pooled_by_the_region_s_share_of_each_patch() -> None:
    patches, masks = torch.randn(2, 5, 7, 7), torch.zeros(2, 224, 224)
    masks[0, :32, :48] = 1  # one patch and half of the next
    share = patch_share(masks, 32)
    assert share[0, 0, :3].tolist() == [1.0, 0.5, 0.0]
    pooled = pool_crop(patches, share)
    assert torch.allclose(pooled[0], (patches[0, :, 0, 0] + patches[0, :, 0, 1] / 2) / 1.5, atol=1e-6)
    assert not pooled[1].any()


def test_geometry_tells_size_place_and_edges() -> None:
    cover = torch.zeros(1, 4, 8)
    cover[0, 3, :4] = 1.0  # the left half of the lowest row
    size, y, off, spread_y, spread_x, *edges = geometry(cover)[0].tolist()
    assert size == pytest.approx((4 / 32) ** 0.5)
    assert (y, off) == pytest.approx((3.5 / 4, 0.25))
    assert (spread_y, spread_x) == pytest.approx((0.0, np.std((np.arange(4) + 0.5) / 8)))
    assert edges == pytest.approx([0.0, 0.5, 0.25, 0.0])  # top, bottom, left, right
    mirrored = geometry(cover.flip(2))[0]
    assert mirrored[:5].tolist() == pytest.approx([size, y, off, spread_y, spread_x])
    assert mirrored[5:].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.25])


def test_the_head_gives_unit_vectors_and_reads_every_look(head: ContextHead) -> None:
    torch.manual_seed(1)
    maps = torch.randn(120, 4, 6), torch.randn(1280, 2, 3)
    looks = pool_looks(torch.randn(3, 1280, 7, 7), torch.rand(3, 7, 7), *maps, torch.rand(3, 4, 6))
    assert {name: look.shape for name, look in looks.items()} == {name: (3, n) for name, n in LOOKS.items()}
    features = head(looks)
    assert features.shape == (3, 384)
    assert torch.allclose(features.norm(dim=1), torch.ones(3))
    for name in LOOKS:
        other = head(looks | {name: looks[name].flip(0)})
        assert not torch.allclose(other, features, atol=1e-4), name
    assert head({name: look[:0] for name, look in looks.items()}).shape == (0, 384)


def test_gradients_reach_the_trunk_through_every_look(head: ContextHead) -> None:
    seen = [torch.randn(2, 1280, 7, 7), torch.randn(120, 4, 4), torch.randn(1280, 2, 2)]
    for one in seen:
        one.requires_grad_(True)
    looks = pool_looks(seen[0], torch.rand(2, 7, 7), seen[1], seen[2], torch.rand(2, 4, 4))
    head(looks)[:, 0].sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in seen)
