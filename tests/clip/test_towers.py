"""open_clip's modules with mask prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import token_mask

END_OF_TEXT = 49407


@torch.no_grad()
def test_without_a_mask_the_image_tower_is_open_clips(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, _ = crops_and_masks
    torch.testing.assert_close(clip.image_tower(crops), clip.image_tower.visual(crops), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_mask_without_background_changes_nothing(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, _ = crops_and_masks
    everything = torch.ones(len(crops), 16)
    torch.testing.assert_close(clip.image_tower(crops, everything), clip.image_tower(crops))


@torch.no_grad()
def test_what_a_background_patch_shows_has_no_influence(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, masks = crops_and_masks
    kept = token_mask(masks, 4)
    patches = kept.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = crops * patches + 5 * (1 - patches)
    assert torch.equal(clip.image_tower(crops, kept), clip.image_tower(other, kept))
    assert not torch.allclose(clip.image_tower(crops), clip.image_tower(other), atol=1e-3)


@torch.no_grad()
def test_every_level_of_prompts_counts(clip: MaskAdaptedCLIP, crops_and_masks):
    crops, masks = crops_and_masks
    kept = token_mask(masks, 4)
    before = clip.image_tower(crops, kept)
    for level in range(3):
        prompts = clip.image_tower.prompts.mask_embedding
        stored = prompts[level].clone()
        prompts[level] = 0
        assert (clip.image_tower(crops, kept) - before).abs().max() > 1e-3, level
        prompts[level] = stored


def test_the_tower_tells_its_sizes(clip: MaskAdaptedCLIP):
    tower = clip.image_tower
    assert (tower.image_size, tower.patch, tower.grid) == (16, 4, 4)
    assert {block.attn.num_heads for block in tower.visual.transformer.resblocks} == {2}  # heads are 64 wide


def end_of(tokens: Tensor) -> list[int]:
    """Where each sentence ends: the place CLIP reads the feature at."""
    return tokens.argmax(dim=1).tolist()


def test_a_sentence_too_long_for_the_context_keeps_its_end_token(clip: MaskAdaptedCLIP):
    tokens = clip.text_tower.tokens(["cat " * 200, "cat"])
    assert tokens.shape == (2, 77)
    assert tokens[0, 76] == END_OF_TEXT
    assert end_of(tokens) == [76, 2]


@torch.no_grad()
def test_any_script_becomes_a_feature(clip: MaskAdaptedCLIP):
    features = clip.text_tower(["🦊🌲", "كلب", "狗", "", "💩" * 100])
    assert features.shape == (5, 32)
    assert features.isfinite().all()
    assert len({tuple(row.tolist()) for row in features}) == 5
