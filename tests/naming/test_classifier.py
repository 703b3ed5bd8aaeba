"""One arm at work: what arms have in common is done once, and names outlive the process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.clip import MaskAdaptedCLIP, RegionCache
from ovseg_demo.clip.mini import CROP_RECIPE, MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.proposals import Proposals


def arm(text_key: str = "text") -> MaskAdaptedCLIP:
    torch.manual_seed(0)
    tower = MiniImageTower(MiniConfig(width=64, layers=1), prompt_depth=1)
    clip = MaskAdaptedCLIP(tower, MiniTextTower(), embed_dim=768, crop_recipe=CROP_RECIPE).eval()
    clip.text_key = text_key
    return clip


@pytest.fixture(scope="module")
def vanilla() -> MaskAdaptedCLIP:
    return arm()


@pytest.fixture
def asked(vanilla: MaskAdaptedCLIP, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the text tower was asked for; it still answers."""
    names: list[str] = []
    answer = MaskAdaptedCLIP.encode_text

    def noted(self: MaskAdaptedCLIP, some: Sequence[str], *args: Any) -> torch.Tensor:
        names.extend(some)
        return answer(self, some, *args)

    monkeypatch.setattr(MaskAdaptedCLIP, "encode_text", noted)
    return names


def photo_with_proposals() -> tuple[np.ndarray, Proposals]:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 40, 60)) < 0.3
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), Proposals.of(masks, np.ones(3, np.float32))


def test_the_second_arm_goes_on_from_what_the_first_has_seen(vanilla: MaskAdaptedCLIP) -> None:
    image, proposals = photo_with_proposals()
    adapted = arm()
    tower: Any = adapted.image_tower
    with torch.no_grad():  # so different that it says the opposite
        for end in (tower.proj, tower.class_text, *tower.pooled_branch[-1].parameters()):
            end.neg_()
    cache = RegionCache()
    first = Classifier(vanilla).embed(image, proposals, cache)
    alone = Classifier(adapted).embed(image, proposals)
    after = Classifier(adapted).embed(image, proposals, cache)
    np.testing.assert_allclose(after.regions, alone.regions, atol=1e-5)
    np.testing.assert_allclose(after.photo, -first.photo, atol=1e-5)
    assert first.timings["crop"] > 0 and after.timings["crop"] == 0
    assert len(cache.stems) == 1 and len(cache.crops) == 2


def test_no_proposals_are_no_error(vanilla: MaskAdaptedCLIP) -> None:
    image, _ = photo_with_proposals()
    features = Classifier(vanilla).embed(image, Proposals.empty(40, 60))
    assert features.regions.shape == (0, 768)
    assert features.photo.shape == (768,)


def test_names_are_embedded_once_and_then_read_from_disk(
    vanilla: MaskAdaptedCLIP, asked: list[str], tmp_path: Path
) -> None:
    first = Classifier(vanilla, TextCache(tmp_path))
    features = first.text(["dog", "grass", "dog"], "single")
    np.testing.assert_array_equal(features[0], features[2])
    assert asked == ["dog", "grass"]
    again = Classifier(vanilla, TextCache(tmp_path)).text(["grass", "sky", "dog"], "single")
    assert asked == ["dog", "grass", "sky"]
    np.testing.assert_array_equal(again[2], features[0])


def test_other_sentences_are_other_features(
    vanilla: MaskAdaptedCLIP, asked: list[str], tmp_path: Path
) -> None:
    classifier = Classifier(vanilla, TextCache(tmp_path))
    single, many = classifier.text(["dog"], "single"), classifier.text(["dog"], "vild")
    assert asked == ["dog", "dog"]
    assert not np.allclose(single, many)


def test_a_model_without_a_hash_keeps_nothing_on_disk(tmp_path: Path) -> None:
    Classifier(arm(text_key=""), TextCache(tmp_path)).text(["dog"], "single")
    assert list(tmp_path.iterdir()) == []
