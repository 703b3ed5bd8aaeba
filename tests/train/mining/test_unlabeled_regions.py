"""Regions that no noun was given to: which are kept, how they are labelled, how a step sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from tests.train.synthetic_pairs import mine_settings
from train.core.loop import AdaptationModel
from train.data.pair_folder import PairFolder
from train.data.pairs import StemPairs, open_pairs
from train.data.pseudo_labels import allowed_names, background, pseudo_labels
from train.data.shards import read_manifest, read_pairs
from train.finetune import FinetuneSettings, finetune
from train.mine_pairs import main
from train.mining.pairing import Lexicon, PhotoView
from train.mining.settings import MineSettings
from train.mining.unlabeled_regions import UnlabeledRules, select_unlabeled


@pytest.fixture(scope="module")
def mined(scenes: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> MineSettings:
    """The scenes, mined with up to three regions a photo that no noun was given to."""
    settings = mine_settings(tmp_path_factory.mktemp("unlabeled"), scenes, small_clip, unlabeled_regions=3)
    main(settings)
    return settings


# --- which are kept --------------------------------------------------------------------------------------


def photo_of(rows: list[list[float]], area: list[float]) -> PhotoView:
    array = np.array(rows, np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    return PhotoView(array, np.array(area, np.float32), np.ones(len(area), np.float32), np.eye(len(area)))


DOG_AND_GRASS = Lexicon(("dog", "grass"), np.eye(2, dtype=np.float32), 20.0)


def test_a_noun_that_another_region_shows_far_better_is_ruled_out() -> None:
    view = photo_of([[1, 0.1], [0.5, 1], [0.3, 1]], [0.2, 0.3, 0.4])
    (one, two) = select_unlabeled(view, ["dog", "grass"], DOG_AND_GRASS, {0}, UnlabeledRules(5), "photo")
    assert (one.region, two.region) == (1, 2)
    assert one.candidate_nouns == two.candidate_nouns == ("grass",)
    (all_three) = select_unlabeled(view, ["dog", "grass"], DOG_AND_GRASS, (), UnlabeledRules(5), "photo")
    assert all_three[0].candidate_nouns == ("dog",)


def test_named_and_small_regions_and_photos_without_nouns_give_none() -> None:
    view = photo_of([[1, 0], [0, 1], [1, 1]], [0.2, 0.001, 0.4])
    rules = UnlabeledRules(5)
    assert [u.region for u in select_unlabeled(view, ["dog"], DOG_AND_GRASS, {0}, rules, "x")] == [2]
    assert select_unlabeled(view, [], DOG_AND_GRASS, (), rules, "x") == []
    assert select_unlabeled(view, ["dog"], DOG_AND_GRASS, {0, 2}, rules, "x") == []


def test_the_draw_depends_on_the_photo_alone_and_prefers_large_regions() -> None:
    area = [0.02] * 30 + [0.5]
    view = photo_of([[1, 0]] * 31, area)
    drawn = {
        name: [u.region for u in select_unlabeled(view, ["dog"], DOG_AND_GRASS, (), UnlabeledRules(4), name)]
        for name in map(str, range(60))
    }
    again = select_unlabeled(view, ["dog"], DOG_AND_GRASS, (), UnlabeledRules(4), "7")
    assert [u.region for u in again] == drawn["7"]
    assert all(len(rows) == 4 for rows in drawn.values())
    assert len({tuple(rows) for rows in drawn.values()}) > 40
    assert sum(30 in rows for rows in drawn.values()) > 15  # of 60; alike they would be 8


# --- how they are labelled -------------------------------------------------------------------------------

BANK = ["dog", "puppy", "cat", "sky", "grass", "boat"]


def text_of_bank() -> torch.Tensor:
    text = torch.eye(6)
    text[1] = functional.normalize(text[0] + 0.5 * text[1], dim=0)  # a puppy is a dog
    return text


def test_background_is_allowed_everywhere_and_things_only_where_they_are_mentioned() -> None:
    assert {"sky", "grass"} <= background() and not {"dog", "boat"} & background()
    may, mentioned = allowed_names(BANK, text_of_bank(), [("puppy",), (), ("small dog", "unheard-of")])
    assert [n for n, ok in zip(BANK, may[0], strict=True) if ok] == ["dog", "puppy", "sky", "grass"]
    assert [n for n, ok in zip(BANK, may[1], strict=True) if ok] == ["sky", "grass"]
    assert torch.equal(may[2], may[0]), "the last word says what it is"
    assert mentioned.sum(dim=1).tolist() == [1, 0, 1]


def test_labels_are_distributions_over_what_is_allowed() -> None:
    text = text_of_bank()
    opinion = functional.normalize(torch.randn(20, 6, generator=torch.manual_seed(0)), dim=-1)
    may, mentioned = allowed_names(BANK, text, [("boat",)] * 19 + [()])
    labels = pseudo_labels(opinion, 20.0, text, may, mentioned)
    assert torch.allclose(labels.float().sum(dim=1), torch.ones(20), atol=2e-3)
    assert not labels[~may].any()
    nothing = pseudo_labels(opinion, 20.0, text, torch.zeros_like(may), mentioned)
    assert not nothing.any(), "no label where nothing is allowed"


def test_what_vanilla_sees_everywhere_counts_less() -> None:
    text = torch.eye(6)
    # All regions look a bit more like grass than like sky; the last one looks more like sky than others do.
    opinion = torch.zeros(10, 6)
    opinion[:, 4], opinion[:, 3] = 0.6, 0.2
    opinion[9, 3] = 0.58
    may, mentioned = allowed_names(BANK, text, [()] * 10)
    labels = pseudo_labels(opinion, 20.0, text, may, mentioned)
    assert labels[0].argmax() == 4 and labels[9].argmax() == 3


# --- from photos to a training step ----------------------------------------------------------------------


def test_mining_keeps_them_beside_the_same_pairs(mined: MineSettings, tmp_path: Path) -> None:
    without = replace(mined, work=tmp_path / "work", out=tmp_path / "pairs", unlabeled_regions=0)
    main(without)
    manifest = read_manifest(mined.out)
    assert read_manifest(without.out)["shards"] == manifest["shards"]
    assert "unlabeled" not in read_manifest(without.out)
    folder = PairFolder(mined.out)
    assert sum(one["regions"] for one in manifest["unlabeled"]) == len(folder.candidate_nouns) > 0
    assert len(folder) == len(list(read_pairs(mined.out))), "they are no pairs"
    for row in range(len(folder.candidate_nouns)):
        image, mask = folder.unlabeled_crop(row)
        assert image.shape[:2] == mask.shape and mask.any()


def test_a_lost_file_of_them_is_mined_again(mined: MineSettings) -> None:
    lost = mined.out / read_manifest(mined.out)["unlabeled"][0]["name"]
    before = lost.read_bytes()
    lost.unlink()
    main(mined)
    assert lost.read_bytes() == before


@pytest.fixture
def stem_pairs(
    mined: MineSettings, small_clip: Path, tmp_path: Path
) -> Iterator[tuple[StemPairs, torch.Tensor, FinetuneSettings]]:
    settings = FinetuneSettings(
        pairs=(mined.out,),
        out=tmp_path / "ft",
        model=str(small_clip),
        batch=6,
        steps=3,
        views=1,
        pseudo_labels=0.5,
    ).filled()
    opened = open_pairs(settings, load_clip(str(small_clip), weights="vanilla"))
    pairs, text = opened.source, opened.text
    assert isinstance(pairs, StemPairs)
    yield pairs, text, settings


def test_a_pair_brings_the_same_region_along_in_whatever_part_it_is(
    stem_pairs: tuple[StemPairs, torch.Tensor, FinetuneSettings],
) -> None:
    pairs = stem_pairs[0]
    rows = np.arange(len(pairs.noun_of)).repeat(4)
    whole, parts = pairs.batch(rows, 5), [pairs.batch(part, 5) for part in np.split(rows, 2)]
    assert len(whole.inputs) > len(whole.right)
    together = torch.cat([part.inputs[len(part.right) :] for part in parts])
    assert torch.equal(whole.inputs[len(rows) :], together)
    assert whole.targets is not None and len(whole.targets) == len(whole.inputs) == len(whole.token_mask)
    assert not torch.equal(whole.inputs[len(rows) :], pairs.batch(rows, 6).inputs[len(rows) :])


def test_their_labels_are_part_of_the_loss_and_pairs_are_as_ever(
    stem_pairs: tuple[StemPairs, torch.Tensor, FinetuneSettings], small_clip: Path
) -> None:
    pairs, text, _ = stem_pairs
    model = AdaptationModel(load_clip(str(small_clip), weights="vanilla"), text, use_prompts=False)
    batch = pairs.batch(np.arange(len(pairs.noun_of)), 0)
    count = len(batch.right)
    assert batch.targets is not None
    alone = replace(
        batch, inputs=batch.inputs[:count], token_mask=batch.token_mask[:count], targets=batch.targets[:count]
    )
    with torch.no_grad():
        with_rest, without = model(batch, 0.0, amp=False), model(alone, 0.0, amp=False)
        assert torch.allclose(with_rest["loss"], without["loss"], atol=1e-5)
        assert with_rest["top1"] == without["top1"]
        extra, extra_alone = (model(one, 1.0, amp=False)["distil"] for one in (batch, alone))
        features = functional.normalize(model.tower.from_stem(batch.inputs[count:], None).float(), dim=-1)
        logits = model.log_scale.exp() * features @ text.T
        rest = functional.kl_div(logits.log_softmax(-1), batch.targets[count:], reduction="sum") / count
    assert extra.item() == pytest.approx((extra_alone + rest).item(), rel=1e-3)


def test_training_uses_them_and_a_folder_without_any_is_no_error(
    mined: MineSettings, small_clip: Path, tmp_path: Path
) -> None:
    shared = {"pairs": (mined.out,), "model": str(small_clip), "batch": 4, "steps": 2, "views": 1}
    shared["keep"] = tmp_path / "stems"
    finetune(FinetuneSettings(out=tmp_path / "with", pseudo_labels=1.0, **shared))
    finetune(FinetuneSettings(out=tmp_path / "without", pseudo_labels=0.0, **shared))
    one, other = (load_clip(tmp_path / name).state_dict() for name in ("with", "without"))
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="--pseudo-labels must lie in 0 to 1, not 2"):
        FinetuneSettings(pairs=(), pseudo_labels=2.0)
    with pytest.raises(SettingsError, match="--unlabeled-regions must not be negative, but is -1"):
        MineSettings(unlabeled_regions=-1)
