"""Regions and names are embedded in one space, any number of each."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.crop_batches import CROPS_AT_ONCE
from ovseg_demo.errors import CheckpointError, ModelError, UnknownModelError
from ovseg_demo.regions import crop_regions

MINI = Path(__file__).resolve().parents[2] / "checkpoints" / "ovseg-mini" / "vanilla.safetensors"


def test_features_have_unit_length(clip: MaskAdaptedCLIP, crops_and_masks):
    for features in (clip.encode_regions(*crops_and_masks), clip.encode_text(["cat", "tree"], "single")):
        assert features.dtype == torch.float32
        assert not features.requires_grad
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(len(features)))


@pytest.mark.parametrize("use_prompts", [True, False])
def test_no_region_is_no_feature(clip: MaskAdaptedCLIP, crops_and_masks, use_prompts):
    crops, masks = crops_and_masks
    assert clip.encode_regions(crops[:0], masks[:0], use_prompts).shape == (0, 32)


@pytest.mark.parametrize("use_prompts", [True, False])
def test_one_region_gets_what_it_gets_among_others(clip: MaskAdaptedCLIP, crops_and_masks, use_prompts):
    crops, masks = crops_and_masks
    together = clip.encode_regions(crops, masks, use_prompts)
    for b in range(len(crops)):
        alone = clip.encode_regions(crops[b : b + 1], masks[b : b + 1], use_prompts)
        torch.testing.assert_close(alone, together[b : b + 1], atol=1e-5, rtol=0)


def test_more_regions_than_fit_at_once(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, masks = (t.repeat(6, *[1] * (t.ndim - 1)) for t in crops_and_masks)
    assert len(crops) > CROPS_AT_ONCE
    features = clip.encode_regions(crops, masks)
    torch.testing.assert_close(features, features[:7].repeat(6, 1), atol=1e-5, rtol=0)


def test_prompts_can_be_left_out(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, masks = crops_and_masks
    plain = clip.encode_regions(crops, masks, use_prompts=False)
    assert clip.has_prompts
    assert (clip.encode_regions(crops, masks) - plain).abs().max() > 1e-2
    torch.testing.assert_close(clip.encode_regions(crops, torch.ones_like(masks)), plain)


def test_the_vanilla_arm_of_a_file_has_no_prompts(clip: MaskAdaptedCLIP, weights, saved, crops_and_masks):
    vanilla = load_clip(saved(weights), weights="vanilla")
    assert not vanilla.has_prompts
    crops, masks = crops_and_masks
    assert torch.equal(vanilla.encode_regions(crops, masks), clip.encode_regions(crops, masks, False))


def test_crops_made_with_its_recipe_fit(clip: MaskAdaptedCLIP):
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    masks = np.random.default_rng(1).random((3, 30, 50)) < 0.1
    regions = crop_regions(image, masks, clip.crop_recipe)
    assert clip.encode_regions(regions.crops, regions.masks).shape == (3, 32)


def test_crops_of_another_size_are_refused(clip: MaskAdaptedCLIP):
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 16\).*\(1, 3, 224, 224\)"):
        clip.encode_regions(torch.zeros(1, 3, 224, 224), torch.zeros(1, 224, 224))
    with pytest.raises(ValueError, match="masks"):
        clip.encode_regions(torch.zeros(2, 3, 16, 16), torch.zeros(1, 16, 16))


def test_no_name_is_no_feature(clip: MaskAdaptedCLIP):
    assert clip.encode_text([]).shape == (0, 32)


def test_unknown_templates_are_refused_with_the_known_ones(clip: MaskAdaptedCLIP):
    with pytest.raises(ValueError, match="'openai'; choose vild, imagenet, single"):
        clip.encode_text(["cat"], "openai")


def test_a_loaded_model_says_where_it_is_from(weights, saved):
    path = saved(weights, "my_clip.pt")
    clip = load_clip(str(path))
    assert clip.name == "my_clip"
    assert clip.weights_sha256 == sha256(path.read_bytes()).hexdigest()
    assert not clip.training


def test_what_is_neither_a_model_nor_a_file_is_refused(tmp_path):
    with pytest.raises(UnknownModelError, match="clip-vit-z"):
        load_clip("clip-vit-z")
    with pytest.raises(UnknownModelError, match=r"gone\.pt"):
        load_clip(tmp_path / "gone.pt")


def test_a_name_of_the_table_is_no_path(tmp_path, monkeypatch):
    """A folder called like a model does not hide the model."""
    (tmp_path / "clip-vit-b-16").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="clip-vit-b-16 has no adapted weights"):
        load_clip("clip-vit-b-16", weights="adapted")


def test_an_ovseg_mini_is_told_by_the_config_beside_it(tmp_path):
    clip = load_clip(MINI)
    assert clip.name == "ovseg-mini"
    assert type(clip.image_tower).__name__ == "MiniImageTower"
    shutil.copy(MINI, tmp_path / "alone.safetensors")
    with pytest.raises(CheckpointError, match=r"an ovseg-mini without its config\.json"):
        load_clip(tmp_path / "alone.safetensors")


def test_the_same_twice_is_the_same_to_the_last_bit(clip: MaskAdaptedCLIP, crops_and_masks):
    assert torch.equal(clip.encode_regions(*crops_and_masks), clip.encode_regions(*crops_and_masks))
    assert torch.equal(clip.encode_text(["cat", "tree"]), clip.encode_text(["cat", "tree"]))
