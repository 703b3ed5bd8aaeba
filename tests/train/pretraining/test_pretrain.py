"""Pretraining of ovseg-mini: everyday names, priors, batches that depend on the step alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.minilm import MiniTextTower
from train.core.checkpointing import ResumeError
from train.data.everyday_names import EVERYDAY_NAMES, everyday_names
from train.data.sources import DataError, Photo, read_sources
from train.pretrain import pretrain
from train.pretraining import text_bank
from train.pretraining.batches import Batch, sample_batch
from train.pretraining.loss import Priors, name_priors, training_loss
from train.pretraining.model import PretrainingModel, TextHead
from train.pretraining.settings import PretrainSettings
from train.pretraining.stages import pooled_stage, token_stage
from train.pretraining.text_bank import TextBank

SETTINGS = PretrainSettings(shards=2, negatives=2)


def bank() -> TextBank:
    """Three captions and four names, of which the first two are the classifier's."""
    vectors = functional.normalize(torch.randn(3, 384, generator=torch.Generator().manual_seed(0)), dim=-1)
    names = functional.normalize(torch.randn(3, 4, 384, generator=torch.Generator().manual_seed(1)), dim=-1)
    classes = torch.zeros(1000, 4)
    classes[:, 0], classes[0] = 1.0, torch.tensor([0.0, 0.5, 0.5, 0.0])
    return TextBank(
        vectors, [[0, 1], [2], []], ["a", "b", "c", "d"], names, [{2: 1.0}, {2: 0.5, 3: 0.5}, {}], classes
    )


def photos() -> list[Photo]:
    return [
        Photo(Path("1.jpg"), "drawn", ("one", "two")),
        Photo(Path("2.jpg"), "drawn", ("three",)),
        Photo(Path("3.jpg"), "drawn"),
    ]


def test_every_class_of_the_classifier_has_everyday_names() -> None:
    lines = [line for line in EVERYDAY_NAMES.read_text("utf-8").splitlines() if not line.startswith("#")]
    names = everyday_names([line.split(" | ")[0] for line in lines])
    assert len(names) == 1000 and all(names)
    assert names[160] == ["dog"]  # Afghan hound


def test_everyday_names_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="tench"):
        everyday_names(["goldfish"])
    with pytest.raises(DataError, match="1000 classes instead of 1"):
        everyday_names(["tench"])


def test_a_batch_depends_on_the_rng_alone_and_its_wide_half_has_words() -> None:
    one, two = (sample_batch(photos(), bank(), 4, 0.5, np.random.default_rng(7), SETTINGS) for _ in range(2))
    assert (one.photos, one.views, one.captions) == (two.photos, two.views, two.captions)
    assert set(one.photos[: one.wide]) == {0, 1} and set(one.views[: one.wide]) == {0}
    assert set(one.views[one.wide :]) == {1}
    own = {0, 1, 2}
    assert not own & set(one.other_captions)


def test_frequent_names_have_the_higher_prior() -> None:
    shards = [{"logits": torch.zeros(14, 1000)}, {"logits": torch.zeros(14, 1000)}]
    priors = name_priors(bank(), shards, 0.5)
    assert priors.worded.argmax() == 2 and priors.classifier.argmax() == 0
    assert not name_priors(bank(), shards, 0.0).worded.any()


def test_the_loss_is_lower_where_the_view_says_its_name() -> None:
    torch.manual_seed(0)
    head, words = TextHead(), bank()
    batch = Batch([0, 1], [0, 0], 2, [0, 2], [], torch.eye(4)[[2, 3]], 0)
    none = Priors(torch.zeros(4), torch.zeros(4))

    def loss(image: torch.Tensor) -> dict[str, float]:
        return training_loss(head, words, image, torch.zeros(2, 1000), batch, none, SETTINGS)[1]

    right, wrong = words.name_vectors[0][[2, 3]], words.name_vectors[0][[3, 2]]
    assert loss(right)["name"] < 0.1 < loss(wrong)["name"]
    assert loss(words.captions[[0, 2]])["caption"] < 0.1 < loss(words.captions[[2, 0]])["caption"]


def test_the_stages_never_train_the_trunk() -> None:
    model = PretrainingModel()
    for make in (pooled_stage, token_stage):
        stage = make(model, SETTINGS)
        moving = {id(p) for group in stage.groups for p in group["params"]}
        tower = model.tower
        assert not moving & {id(p) for p in (*tower.trunk.parameters(), *tower.classifier.parameters())}
        assert ({id(p) for p in tower.pooled_branch.parameters()} <= moving) == (stage.name == "pooled")
        assert (id(tower.proj) in moving) == (stage.name == "tokens")
        assert {id(p) for p in stage.head.parameters()} <= moving


@torch.inference_mode()
def test_a_joined_cosine_is_the_mean_of_what_the_halves_say() -> None:
    torch.manual_seed(0)
    model = PretrainingModel().eval()
    nn.init.normal_(model.tower.class_text, std=0.1)
    model.tokens.log_scales.fill_(math.log(30.0))
    model.pooled.log_scales.fill_(math.log(20.0))
    tower, projection, scale = model.joined(0.5)
    patches, vectors = torch.randn(3, 1280, 7, 7), torch.randn(5, 384)
    tower.trunk.top, kept = nn.Sequential(), tower.trunk.top
    image = functional.normalize(tower.from_stem(patches), dim=-1)
    tower.trunk.top = kept
    text = MiniTextTower()
    text.projection.weight.copy_(projection)
    joined = scale * image @ functional.normalize(text.project(vectors), dim=-1).T
    said = (
        functional.normalize(tower.from_patches(patches), dim=-1),
        functional.normalize(tower.from_mean(patches.mean((2, 3))), dim=-1),
    )
    tokens, pooled = (
        one @ head.words(vectors).T for head, one in zip((model.tokens, model.pooled), said, strict=True)
    )
    temperature = (0.5 * 30 + 20) / 1.5
    assert torch.allclose(joined, temperature * (0.5 * tokens + pooled) / 1.5, atol=1e-4)


@pytest.mark.slow
def test_the_whole_command_goes_on_and_writes_a_model(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = read_sources(shared)[::400]
    assert len({photo.source for photo in some}) > 3
    monkeypatch.setattr("train.pretrain.read_sources", lambda data: some)
    few = {"shards": 2, "pooled_steps": 4, "pooled_batch": 8, "steps": 3, "batch": 8}
    small = PretrainSettings(tmp_path / "mini", shared, tmp_path / "work", **few)
    pretrain(small)
    clip = load_clip(small.out, weights="vanilla")
    crops, masks = torch.zeros(1, 3, 224, 224), torch.ones(1, 224, 224)
    assert clip.encode_regions(crops, masks).isfinite().all()
    first = (small.out / "vanilla.safetensors").read_bytes()
    rows = [json.loads(line) for line in (small.work / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("pooled", 4), ("tokens", 3)]
    pretrain(small)  # all is there: the same weights again
    assert (small.out / "vanilla.safetensors").read_bytes() == first
    # Views of other photos are others.
    some.pop()
    with pytest.raises(ResumeError, match="photos="):
        pretrain(small)
    assert len(list(small.work.glob("views_*"))) == 2


def test_sentences_are_embedded_once(tmp_path: Path) -> None:
    first = text_bank.cached_vectors(["a dog", "a boat"], tmp_path)
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    assert torch.equal(text_bank.cached_vectors(["a dog", "a boat"], tmp_path), first)
    assert kept.stat().st_mtime_ns == before and first.shape == (2, 384)
