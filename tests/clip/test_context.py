"""The context arm: descriptors of regions in their photo, the head over them, and both towers together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ovseg_demo.clip import RegionCache, load_clip
from ovseg_demo.clip.context import (
    DESCRIPTORS,
    ContextConfig,
    ContextHead,
    geometry,
    patch_share,
    photo_input,
    photo_size,
    pool_crop,
    pool_map,
    region_cover,
)
from ovseg_demo.clip.context_arm import ContextCLIP
from ovseg_demo.clip.mini import CROP_RECIPE, MiniImageTower
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.clip.text import TEMPLATES, encode_names
from ovseg_demo.errors import CheckpointError, ModelError
from ovseg_demo.models import arms_of, default_arm
from ovseg_demo.regions import crop_regions
from tests.tiny_mini import SMALL, pool_descriptors, write_mini
from train.exporting.weights import read_hashes, save_known_names


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


@pytest.mark.parametrize("size", [(128, 64), (100, 37), (5, 3)])
def test_cells_that_share_rows_are_covered_as_pytorch_pools_them(size: tuple[int, int]) -> None:
    masks = torch.rand(2, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    pooled = torch.nn.functional.adaptive_avg_pool2d(masks.float(), (7, 4))
    torch.testing.assert_close(region_cover(masks, 7 * 16, 4 * 16), pooled)


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


def test_the_head_gives_unit_vectors_and_reads_every_descriptor(head: ContextHead) -> None:
    torch.manual_seed(1)
    maps = torch.randn(120, 4, 6), torch.randn(1280, 2, 3)
    descriptors = pool_descriptors(
        torch.randn(3, 1280, 7, 7), torch.rand(3, 7, 7), *maps, torch.rand(3, 4, 6)
    )
    assert {name: one.shape for name, one in descriptors.items()} == {
        name: (3, n) for name, n in DESCRIPTORS.items()
    }
    features = head(descriptors)
    assert features.shape == (3, 384)
    assert torch.allclose(features.norm(dim=1), torch.ones(3))
    for name in DESCRIPTORS:
        other = head(descriptors | {name: descriptors[name].flip(0)})
        assert not torch.allclose(other, features, atol=1e-4), name
    assert head({name: one[:0] for name, one in descriptors.items()}).shape == (0, 384)


def test_gradients_reach_the_trunk_through_every_descriptor(head: ContextHead) -> None:
    seen = [torch.randn(2, 1280, 7, 7), torch.randn(120, 4, 4), torch.randn(1280, 2, 2)]
    for one in seen:
        one.requires_grad_(True)
    descriptors = pool_descriptors(seen[0], torch.rand(2, 7, 7), seen[1], seen[2], torch.rand(2, 4, 4))
    head(descriptors)[:, 0].sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in seen)


# --- the arm -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ovseg-mini of random weights with all its arms."""
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def photo() -> tuple[np.ndarray, np.ndarray]:
    """A photo wider than high, and three regions of very different size."""
    image = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    masks = np.zeros((3, 90, 150), dtype=np.bool_)
    masks[0, 10:70, 20:110] = True
    masks[1, 60:, :75] = True
    masks[2, 44, 80] = True  # one pixel
    return image, masks


def test_the_logit_of_a_name_is_what_both_say_in_their_shares(
    folder: Path, photo: tuple[np.ndarray, np.ndarray]
) -> None:
    names = ["a red fox", "sky", "wooden table"]
    arm, adapted = load_clip(folder, weights="context"), load_clip(folder, weights="adapted")
    assert isinstance(arm, ContextCLIP) and arm.embed_dim == 1152
    features, text = arm.encode_photo_regions(*photo), arm.encode_text(names)
    assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(text.norm(dim=1), torch.ones(3), atol=1e-5)

    crops = crop_regions(*photo, CROP_RECIPE)
    adapted_says = adapted.encode_regions(crops.crops, crops.masks) @ adapted.encode_text(names).T
    with torch.no_grad():
        trunk = adapted.image_tower.trunk
        seen = photo_input(photo[0], CROP_RECIPE, SMALL)
        fine, coarse = trunk.maps(seen)
        cover = region_cover(torch.from_numpy(photo[1]), *seen.shape[2:])
        descriptors = pool_descriptors(
            trunk(crops.crops), patch_share(crops.masks, 32), fine[0], coarse[0], cover
        )
        own_map = MiniTextTower(384)
        own_map.projection.weight.copy_(arm.text_tower.projection.weight[768:])
        head_says = arm.head(descriptors) @ encode_names(own_map, names, TEMPLATES["vild"]).T
    wanted = 0.4 * 20.0 * adapted_says + 0.6 * 30.0 * head_says
    assert torch.allclose(arm.score_scale * features @ text.T, wanted, atol=1e-3)
    assert not torch.allclose(20.0 * adapted_says, wanted, atol=0.1)


def test_a_region_s_surroundings_change_what_context_says_and_not_what_adapted_says(
    folder: Path, photo: tuple[np.ndarray, np.ndarray]
) -> None:
    image, masks = photo
    other = image.copy()
    other[~masks[0]] = 255 - other[~masks[0]]
    adapted, context = (load_clip(folder, weights=arm) for arm in ("adapted", "context"))
    one, two = (adapted.encode_photo_regions(im, masks[:1]) for im in (image, other))
    assert torch.allclose(one, two, atol=1e-5)
    one, two = (context.encode_photo_regions(im, masks[:1]) for im in (image, other))
    assert torch.allclose(one[:, :768], two[:, :768], atol=1e-5)
    assert not torch.allclose(one[:, 768:], two[:, 768:], atol=1e-3)


@pytest.mark.parametrize("order", [("adapted", "context", "vanilla"), ("context", "vanilla", "adapted")])
def test_arms_share_crops_stem_and_patches_and_say_the_same_as_alone(
    folder: Path,
    photo: tuple[np.ndarray, np.ndarray],
    order: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = {name: load_clip(folder, weights=name) for name in order}
    alone = {name: arm.encode_photo_regions(*photo) for name, arm in arms.items()}
    runs: list[str] = []
    for step in ("stem", "trunk_patches"):
        run = getattr(MiniImageTower, step)

        def noted(self: MiniImageTower, given: torch.Tensor, *, step=step, run=run) -> torch.Tensor:
            runs.append(step)
            return run(self, given)

        monkeypatch.setattr(MiniImageTower, step, noted)
    cache = RegionCache()
    for name, arm in arms.items():
        assert torch.allclose(arm.encode_photo_regions(*photo, cache=cache), alone[name], atol=1e-5)
    assert runs.count("stem") == 1  # for all three
    assert runs.count("trunk_patches") == 2  # vanilla's, and one for adapted and context


def test_no_regions_one_pixel_and_a_large_photo_are_no_error(folder: Path) -> None:
    arm = load_clip(folder, weights="context")
    image = np.random.default_rng(1).integers(0, 256, (400, 1000, 3), dtype=np.uint8)
    assert arm.encode_photo_regions(image, np.zeros((0, 400, 1000), bool)).shape == (0, 1152)
    large, masks = np.zeros((3000, 4000, 3), np.uint8), np.zeros((1, 3000, 4000), bool)
    masks[0, 2999, 3999] = True
    assert arm.encode_photo_regions(large, masks).isfinite().all()
    with pytest.raises(ValueError, match="1 of the 2 masks have no pixel"):
        arm.encode_photo_regions(image, np.stack([np.ones((400, 1000), bool), np.zeros((400, 1000), bool)]))
    with pytest.raises(ModelError, match="encode_photo_regions"):
        arm.encode_regions(torch.zeros(1, 3, 224, 224), torch.zeros(1, 224, 224))


def test_known_names_of_every_text_map_lie_in_one_file(folder: Path) -> None:
    loaded = [load_clip(folder, weights=arm) for arm in ("vanilla", "adapted", "context")]
    save_known_names(folder, *loaded, templates="single")
    for arm in ("vanilla", "adapted", "context"):
        clip = load_clip(folder, weights=arm)
        known = clip.known_names[("traffic light", "single")]
        assert torch.allclose(known, clip.encode_text(["traffic light"], "single")[0], atol=1e-3)
    assert len({clip.text_key for clip in loaded}) == 3
    (folder / "names.safetensors").unlink()


def test_both_files_are_told(folder: Path) -> None:
    clip = load_clip(folder, weights="context")
    hashes = read_hashes(folder)
    assert clip.weights_files == {n: hashes[n] for n in ("adapted.safetensors", "context.safetensors")}
    assert clip.weights_sha256 == hashes["context.safetensors"]
    # Its features depend on both files, so another adapted one makes it another arm.
    adapted = load_clip(folder, weights="adapted")
    assert clip.weights_id and clip.weights_id != adapted.weights_id
    before = clip.weights_id
    clip.weights_files["adapted.safetensors"] = "0" * 64
    assert clip.weights_id != before


def test_the_file_holds_nothing_that_adapted_has(folder: Path) -> None:
    keys = load_file(folder / "context.safetensors").keys()
    assert all(key.startswith("head.") or key == "text.projection.weight" for key in keys)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no adapted", r"context\.safetensors' needs adapted\.safetensors beside it"),
        ("no weight", r"config\.json lacks context\.weight; export the model again"),
        ("no scale", r"config\.json lacks a score_scale of context; export"),
        ("other size", r"head\.linears\.crop\.weight of shape \(32, 1280\) where \(48, 1280\)"),
        ("not finite", "NaN or infinite"),
    ],
)
def test_a_folder_that_does_not_fit_is_told(folder: Path, tmp_path: Path, fault: str, told: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    config = json.loads((broken / "config.json").read_text())
    if fault == "no adapted":
        (broken / "adapted.safetensors").unlink()
    elif fault == "no weight":
        del config["context"]["weight"]
    elif fault == "no scale":
        del config["score_scale"]["context"]
    elif fault == "other size":
        config["context"]["hidden"] = 48
    else:
        tensors = load_file(broken / "context.safetensors")
        tensors["head.projection.bias"][0] = float("nan")
        save_file(tensors, broken / "context.safetensors")
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=told):
        load_clip(broken, weights="context")


def test_a_folder_without_the_file_has_no_such_arm(folder: Path, tmp_path: Path) -> None:
    assert arms_of(folder) == ("vanilla", "adapted", "context") and default_arm(folder) == "context"
    assert isinstance(load_clip(folder), ContextCLIP)  # the best by default
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    (older / "context.safetensors").unlink()
    assert arms_of(older) == ("vanilla", "adapted")
    assert load_clip(older).embed_dim == 768
    with pytest.raises(CheckpointError, match=r"has no context\.safetensors"):
        load_clip(older, weights="context")
    with pytest.raises(ModelError, match="has no context arm"):
        load_clip(older / "adapted.safetensors", weights="context")
