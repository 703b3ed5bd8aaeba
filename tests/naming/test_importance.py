"""What mattered in a crop is what the word loses when it is hidden, for every kind of arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.context_arm import ContextCLIP
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.clip.pooled_arm import PooledCLIP
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.naming.importance import Importance, OcclusionCache, occlude, word_importance
from ovseg_demo.progress import run_to_end
from ovseg_demo.regions import CropRecipe, background_of, crop_regions
from ovseg_demo.vocabulary import Vocabulary
from tests.tiny_full import clip_weights
from tests.tiny_mini import write_mini

WORDS = Vocabulary.parse("cow, grass, blue sky")


def photo() -> tuple[np.ndarray, np.ndarray]:
    """A photo with a region that fills the left and the lower part of its box."""
    image = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    mask = np.zeros((60, 90), dtype=bool)
    mask[10:50, 20:40] = mask[35:50, 20:75] = True
    return image, mask


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> MaskAdaptedCLIP:
    """A CLIP of 4 x 4 tokens with three levels of mask prompts."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(clip_weights(), path)
    return load_clip(path)


def explained(clip: MaskAdaptedCLIP, rule: str = "default", words: Vocabulary = WORDS) -> Importance:
    image, mask = photo()
    steps = word_importance(Classifier(clip), "adapted", image, mask, words, 1, templates="single", rule=rule)
    return run_to_end(steps)


def margin(clip: MaskAdaptedCLIP, features: torch.Tensor) -> tuple[np.ndarray, int]:
    """Of cow against the other typed words, worked out by hand; and which of them is strongest at first."""
    text = clip.encode_text(WORDS.names, "single").numpy()
    logits = clip.score_scale * features.numpy() @ text.T
    rival = int(logits[0, 1:].argmax()) + 1
    return logits[:, 0] - logits[:, rival], rival


def test_a_hidden_cell_is_blank_and_its_token_gives_way_to_a_prompt() -> None:
    image, mask = photo()
    recipe = CropRecipe(size=32)
    hidden = occlude(image, mask, recipe, 8)
    whole = crop_regions(image, mask[None], recipe)
    assert torch.equal(hidden.crops[0], whole.crops[0]) and torch.equal(hidden.masks[0], whole.masks[0])
    assert hidden.shown.shape == (4, 4) and hidden.shown.sum() == len(hidden.crops) - 1
    assert not hidden.shown[0, 3]  # the upper right of the box shows nothing of the region
    tokens = token_mask(hidden.masks, 8).reshape(-1, 4, 4)
    for number, (row, column) in enumerate(np.argwhere(hidden.shown), start=1):
        place = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert (hidden.crops[number][:, place[0], place[1]] == background_of(recipe)).all()
        assert tokens[number, row, column] == 0 and tokens[0, row, column] == 1
        changed = hidden.crops[number] != hidden.crops[0]
        changed[:, place[0], place[1]] = False
        assert not changed.any() and (tokens[number] != tokens[0]).sum() == 1


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (24, 24)], ids=["tall", "wide", "square"])
def test_the_cells_cut_the_region_in_the_photo_where_they_cut_the_crop(shape: tuple[int, int]) -> None:
    """Padded boxes included: each pixel of the region is hidden once, in the cell that shows it."""
    image = np.zeros((60, 90, 3), dtype=np.uint8)
    mask = np.zeros((60, 90), dtype=bool)
    mask[5 : 5 + shape[0], 30 : 30 + shape[1]] = True
    recipe = CropRecipe(size=64, max_stretch=1.5)
    hidden = occlude(image, mask, recipe, 16)
    removed = hidden.photo_masks[0] & ~hidden.photo_masks[1:]
    assert (removed.sum(0) == mask).all()
    # The share that a cell takes of the region is the same in the crop and in the photo.
    in_crop = (hidden.masks[0] - hidden.masks[1:]).sum((1, 2)) / hidden.masks[0].sum()
    np.testing.assert_allclose(removed.sum((1, 2)) / mask.sum(), in_crop.numpy(), atol=0.05)


def test_a_fine_grid_gets_cells_of_several_tokens() -> None:
    image, mask = photo()
    assert occlude(image, mask, CropRecipe(size=64), 4).shown.shape == (8, 8)
    assert occlude(image, mask, CropRecipe(size=56), 4).shown.shape == (7, 7)


def test_a_region_without_a_pixel_is_refused() -> None:
    image, mask = photo()
    with pytest.raises(ValueError, match="no pixel"):
        occlude(image, np.zeros_like(mask), CropRecipe(size=32), 8)


@pytest.mark.parametrize("arm", ["vanilla", "adapted"])
def test_the_effect_is_what_the_margin_loses(mini: Path, transformer: MaskAdaptedCLIP, arm: str) -> None:
    """Against the same crops embedded one by one, without what the arms share."""
    image, mask = photo()
    for clip in (load_clip(mini, weights=arm), transformer):
        found = explained(clip, rule="benchmark")
        hidden = occlude(image, mask, clip.crop_recipe, clip.image_tower.patch)
        rows = [
            clip.encode_regions(c[None], m[None]) for c, m in zip(hidden.crops, hidden.masks, strict=True)
        ]
        margins, rival = margin(clip, torch.cat(rows))
        assert found.rival == WORDS.names[rival] and found.word == "cow"
        assert found.margin == pytest.approx(margins[0], abs=1e-3)
        np.testing.assert_allclose(found.effect[found.shown], margins[0] - margins[1:], atol=1e-3)
        assert (found.effect[~found.shown] == 0).all() and np.abs(found.effect).max() > 1e-3
        assert not found.pools_photo and found.crop.shape == (clip.image_tower.image_size,) * 2 + (3,)


def test_the_context_arm_loses_what_it_pools_under_a_cell(mini: Path) -> None:
    clip = load_clip(mini, weights="context")
    assert isinstance(clip, ContextCLIP)
    image, mask = photo()
    found = explained(clip, rule="benchmark")
    assert found.pools_photo
    whole = clip.encode_photo_regions(image, mask[None])
    margins, _ = margin(clip, whole)
    assert found.margin == pytest.approx(margins[0], abs=1e-3)
    # An arm that sees the crop alone has other effects.
    crop_only = explained(load_clip(mini, weights="adapted"), rule="benchmark")
    assert np.abs(found.effect - crop_only.effect).max() > 1e-3


def test_an_arm_that_pools_the_photo_loses_what_it_does_not_pool(transformer: MaskAdaptedCLIP) -> None:
    """It takes no crops; its map lies over the crop of the region all the same."""
    clip = PooledCLIP(transformer)
    found = explained(clip, rule="benchmark")
    image, mask = photo()
    hidden = occlude(image, mask, clip.crop_recipe, clip.image_tower.patch)
    margins, _ = margin(clip, clip.encode_photo_regions(image, hidden.photo_masks))
    assert found.pools_photo
    np.testing.assert_allclose(found.effect[found.shown], margins[0] - margins[1:], atol=1e-4)
    assert np.abs(found.effect).max() > 1e-3


def test_hidden_names_are_rivals_under_the_default_rule(mini: Path) -> None:
    """The margin is what the softmax gets: the scale and the bias of the rule are in it."""
    clip = load_clip(mini, weights="vanilla")
    clip.calibration = {"logit_scale": 0.5, "hidden_bias": 50.0}
    found = explained(clip)
    assert found.rival not in WORDS.names
    without = explained(clip, rule="benchmark")
    assert without.rival in WORDS.names
    assert found.margin < -40


def test_one_word_alone_has_the_rival_of_the_published_rules(mini: Path) -> None:
    found = explained(load_clip(mini, weights="vanilla"), rule="benchmark", words=Vocabulary.parse("cow"))
    assert found.rival == "others" and np.isfinite(found.margin)


def test_arms_share_the_stem(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = photo()
    calls = []
    work = MaskAdaptedCLIP.compute_stem
    monkeypatch.setattr(
        MaskAdaptedCLIP, "compute_stem", lambda self, *some: calls.append(1) or work(self, *some)
    )
    cache = OcclusionCache()
    for arm in ("vanilla", "adapted", "context"):
        classifier = Classifier(load_clip(mini, weights=arm))
        run_to_end(
            word_importance(
                classifier, arm, image, mask, WORDS, 2, templates="single", rule="benchmark", cache=cache
            )
        )
    assert len(calls) == len(cache.crops) == 1
