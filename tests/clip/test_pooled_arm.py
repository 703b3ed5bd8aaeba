"""The context arm without training: a tower's own pooling, restricted to regions, on towers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.model import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.pooled_arm import PhotoView, PooledCLIP, plan_view
from ovseg_demo.clip.region_pooling import pooling_of, resized_positions
from ovseg_demo.clip.towers import ClipImageTower, OpenClipImageTower
from ovseg_demo.errors import ModelError

Weights = dict[str, Tensor]
UNTOUCHED = PhotoView(short_side=1, window=1, class_token=True)
"""A photo of a crop's size is the tower's input as it is."""


def _vit(**options: object) -> VisionTransformer:
    return VisionTransformer(16, 4, 128, 3, 2, 4.0, output_dim=32, act_layer=nn.GELU, **options)


TOWERS: dict[str, Callable[[], nn.Module]] = {
    "class token": _vit,
    "mean of tokens": lambda: _vit(pool_type="avg"),
    "mean of tokens before the norm": lambda: _vit(pool_type="avg", final_ln_after_pool=True),
    "layer scale, no first norm": lambda: _vit(ls_init_value=0.5, no_ln_pre=True),
    "ResNet": lambda: ModifiedResNet([1, 1, 1, 1], 32, 4, 64, width=8),
    "ConvNeXt": lambda: TimmModel("convnext_atto", 32, 64, pool="", proj="linear"),
    "FastViT (MobileCLIP)": lambda: TimmModel("fastvit_t8", 32, 64, pool="avg", proj=""),
    "query (SigLIP)": lambda: TimmModel("vit_tiny_patch16_224", 192, 224, pool="map", proj="none"),
    "query and class token (PE-Core)": lambda: TimmModel(
        "vit_pe_core_tiny_patch16_384", 32, 384, pool="map", proj=""
    ),
    "class token of timm": lambda: TimmModel("vit_tiny_patch16_224", 32, 224, pool="token", proj=""),
    "class token and rotary positions (EVA-02)": lambda: TimmModel(
        "eva02_tiny_patch14_224", 32, 224, pool="token", proj=""
    ),
    "mean of timm's tokens": lambda: TimmModel("vit_tiny_patch16_224", 32, 224, pool="avg", proj=""),
}


def _tower(kind: str) -> ClipImageTower | OpenClipImageTower:
    torch.manual_seed(0)
    visual = TOWERS[kind]().eval()
    for parameter in visual.parameters():
        if parameter.ndim == 1:  # scales and biases of a new model are ones and zeros, which hide mistakes
            nn.init.normal_(parameter, 0.5, 0.3)
    if kind in ("class token", "layer scale, no first norm"):
        return ClipImageTower(visual)
    return OpenClipImageTower(visual)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_pooling_the_whole_picture_is_the_towers_own_output(kind: str) -> None:
    tower = _tower(kind)
    pictures = torch.randn(2, 3, tower.image_size, tower.image_size).double()
    pooling = pooling_of(tower.double(), class_token=True)
    seen = pooling.map(pictures)
    count = seen.grid[0] * seen.grid[1]
    assert seen.cells.shape[:2] == (2, count)
    own = tower(pictures)
    for number in (0, 1):
        pooled = pooling.features(seen, number, torch.ones(3, count))
        torch.testing.assert_close(pooled, own[number].expand(3, -1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_regions_get_features_of_their_own_and_nothing_of_each_other(kind: str) -> None:
    """In double precision, since random towers make little of what they see."""
    tower = _tower(kind).double()
    pooling = pooling_of(tower)
    seen = pooling.map(torch.randn(1, 3, tower.image_size, tower.image_size).double())
    cover = torch.zeros(2, seen.grid[0] * seen.grid[1])
    cover[0, : cover.shape[1] // 2] = 1
    cover[1, cover.shape[1] // 2 :] = 1
    both = pooling.features(seen, 0, cover)
    assert _furthest(both[0], both[1]) > 1e-10
    torch.testing.assert_close(pooling.features(seen, 0, cover[1:]), both[1:], rtol=1e-12, atol=1e-13)
    changed = seen.cells.clone()
    changed[:, : cover.shape[1] // 2] = 3 * torch.randn_like(changed[:, : cover.shape[1] // 2])
    after = pooling.features(type(seen)(changed, seen.prefix, seen.grid, seen.more), 0, cover)
    torch.testing.assert_close(after[1], both[1], rtol=1e-12, atol=1e-13)
    assert _furthest(after[0], both[0]) > 1e-10


def _furthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_positions_stay_on_their_own_grid_and_are_stretched_on_another() -> None:
    positions = torch.cat([torch.full((1, 1), 9.0), torch.arange(4.0).repeat(4)[:, None]])  # by column
    assert resized_positions(positions, (4, 4), (4, 4)) is positions
    wide = resized_positions(positions, (4, 4), (4, 8))
    assert wide[0] == 9 and wide.shape == (33, 1)
    row = wide[1:, 0].view(4, 8)
    assert torch.allclose(row, row[:1].expand(4, -1), atol=1e-4) and (row.diff(dim=1) > 0).all()


def _pooled(kind: str, view: PhotoView | None = None) -> PooledCLIP:
    plain = MaskAdaptedCLIP(_tower(kind), nn.Identity(), embed_dim=192 if "SigLIP" in kind else 32)  # type: ignore[arg-type]
    return PooledCLIP(plain, view)


def _photo(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["class token", "ResNet", "ConvNeXt", "query (SigLIP)"])
def test_a_photo_of_a_crops_size_is_the_crop_of_the_whole(kind: str) -> None:
    clip = _pooled(kind, UNTOUCHED)
    size = clip.crop_recipe.size
    photo, whole = _photo(size, size), np.ones((1, size, size), dtype=np.bool_)
    plain = MaskAdaptedCLIP(clip.image_tower, clip.text_tower, embed_dim=clip.embed_dim)
    torch.testing.assert_close(
        clip.encode_photo_regions(photo, whole),
        plain.encode_photo_regions(photo, whole),
        rtol=1e-3,
        atol=1e-4,
    )


def test_windows_change_nothing_where_one_sees_the_whole_region() -> None:
    """The tower takes its own size only, so a photo twice as long as high is three windows."""
    clip = _pooled("query (SigLIP)", PhotoView(short_side=1, window=1))
    photo = _photo(224, 448)
    plan = plan_view(224, 448, 224, clip.pooling, clip.view)
    assert [(w.top, w.left, w.height, w.width) for w in plan.windows] == [
        (0, left, 224, 224) for left in (0, 112, 224)
    ]
    masks = np.zeros((2, 224, 448), dtype=np.bool_)
    masks[0, 40:150, 10:100] = True  # left of the second window
    masks[1, 40:150, 10:300] = True
    found = clip.encode_photo_regions(photo, masks)
    alone = clip.encode_photo_regions(photo[:, :224], masks[:1, :, :224])
    torch.testing.assert_close(found[:1], alone, rtol=1e-4, atol=1e-5)
    assert _furthest(found[1], found[0]) > 1e-4


def test_a_long_photo_is_windows_and_an_ordinary_one_is_seen_at_once() -> None:
    pooling = pooling_of(_tower("class token"))
    at_once = plan_view(30, 40, 16, pooling, PhotoView())
    assert (at_once.height, at_once.width, len(at_once.windows)) == (24, 32, 1)
    long = plan_view(30, 300, 16, pooling, PhotoView())
    assert (long.height, long.width) == (24, 240) and len(long.windows) > 1
    assert long.windows[0].left == 0 and long.windows[-1].left + long.windows[-1].width == 240
    for left, right in zip(long.windows, long.windows[1:], strict=False):
        assert right.left - left.left <= left.width / 2 + 4 and right.width == 32


@pytest.mark.parametrize("size", [(9, 40), (5, 3), (200, 31)])
def test_every_region_of_any_photo_gets_a_unit_vector(size: tuple[int, int]) -> None:
    clip = _pooled("class token")
    masks = np.zeros((3, *size), dtype=np.bool_)
    masks[0] = True
    masks[1, 0, 0] = masks[2, -1, -1] = True  # one pixel each
    found = clip.encode_photo_regions(_photo(*size), masks)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert clip.encode_photo_regions(_photo(*size), masks[:0]).shape == (0, 32)
    with pytest.raises(ValueError, match="no pixel"):
        clip.encode_photo_regions(_photo(*size), np.zeros_like(masks))


def test_prompts_take_no_part_and_the_names_are_vanillas(
    weights: Weights, saved: Callable[[object], Path]
) -> None:
    path = saved(weights)
    context, vanilla = load_clip(path, weights="context"), load_clip(path, weights="vanilla")
    assert isinstance(context, PooledCLIP) and context.sees_photo and not context.has_prompts
    assert context.text_key == vanilla.text_key and context.weights_files == vanilla.weights_files
    assert torch.equal(context.encode_text(["cat"]), vanilla.encode_text(["cat"]))
    photo, masks = _photo(32, 48), np.ones((1, 32, 48), dtype=np.bool_)
    assert context.encode_photo_regions(photo, masks).shape == (1, 32)
    with pytest.raises(ModelError, match="sees the whole photo"):
        context.encode_regions(torch.zeros(1, 3, 16, 16), torch.ones(1, 16, 16))


def test_a_tower_whose_pooling_is_another_is_refused_in_one_sentence() -> None:
    coca = _vit(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2)
    with pytest.raises(ModelError, match=r"kind VisionTransformer has no context arm; use vanilla\.$"):
        pooling_of(OpenClipImageTower(coca))


def test_a_view_smaller_than_a_crop_or_larger_than_its_window_is_refused() -> None:
    for wrong in ({"short_side": 0.5}, {"short_side": 3.0, "window": 2.0}):
        with pytest.raises(ValueError, match="short_side"):
            PhotoView(**wrong)
