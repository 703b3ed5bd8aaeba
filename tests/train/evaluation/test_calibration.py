"""Choosing the numbers of the default rule: on examples drawn from a known model they come out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.clip import load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.evaluation.metrics import Reliability
from ovseg_demo.merging.evidence import MergeSettings, Scores, found_threshold
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.progress import run_to_end
from ovseg_demo.proposals import Proposals
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.vocabulary import Vocabulary
from tests.tiny_mini import write_mini
from tests.train.named_scenes import write_named_scenes
from train.data.named_regions import read_named_regions
from train.data.truth import TruthSet
from train.evaluation.calibration import (
    TYPED,
    benchmark_pixels_right,
    fit_claims,
    fit_photo_weight,
    fit_regions,
    fit_thresholds,
    fit_words,
    held_out_reliability,
    pixel_figures,
    word_evidence,
)
from train.evaluation.calibration_data import LONG_LIST, MIXES, Example, examples_of
from train.evaluation.free_words import StoredProposals, Truth, make_free_question, stored_proposals
from train.evaluation.reliability_chart import draw_reliability

SCALE, BIAS = 0.5, -1.0


def example(number: int, kind: str = TYPED, words: int = 4) -> Example:
    """Six regions side by side whose right word is drawn from softmax(SCALE x logits)."""
    rng = np.random.default_rng(number)
    typed, hidden = rng.normal(0, 6, (6, words)), rng.normal(0, 6, (6, 5))
    weights = np.exp(SCALE * np.concatenate([typed, hidden + BIAS / SCALE], axis=1))
    drawn = [rng.choice(words + 5, p=row / row.sum()) for row in weights]
    right = np.zeros((7, words + 1), dtype=bool)
    for k, word in enumerate(drawn):
        right[k + 1, word + 1 if word < words else 0] = word < words
    masks = np.zeros((6, 4, 12), dtype=bool)
    for k in range(6):
        masks[k, :, 2 * k : 2 * k + 2] = True
    scores = Scores(
        *(part.astype(np.float32) for part in (typed, hidden, typed.mean(0), hidden.mean(0))),
        others=np.zeros(6, np.float32),
    )
    region_map = (np.arange(12)[None].repeat(4, 0) // 2 + 1).astype(np.uint16)
    present = right[1:, 1:].any(axis=0)
    truth = None if kind == LONG_LIST else Truth(region_map, right)
    quality = np.full(6, 0.9, np.float32)
    ones = np.ones(6, bool), np.ones(words, bool)
    return Example(kind, f"{number}", scores, Proposals.of(masks, quality), truth, ones[0], present, ones[1])


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    lists = [example(1000 + number, LONG_LIST, words=30) for number in range(40)]
    return [example(number) for number in range(250)] + lists


@pytest.fixture(scope="module")
def fitted(examples: list[Example]) -> MergeSettings:
    return fit_thresholds(examples, fit_words(examples, fit_regions(examples, MergeSettings())))


def test_logit_scale_and_hidden_bias_are_those_of_the_model(fitted: MergeSettings) -> None:
    assert fitted.logit_scale == pytest.approx(SCALE, rel=0.1)
    assert fitted.hidden_bias == pytest.approx(BIAS, abs=0.5)


def test_the_threshold_excludes_absent_words(examples: list[Example], fitted: MergeSettings) -> None:
    evidence, present = word_evidence([one for one in examples if one.kind == TYPED], fitted)
    assert (evidence[~present] <= fitted.found_threshold).mean() == pytest.approx(0.93, abs=0.01)


def test_long_lists_get_a_higher_threshold_where_too_many_found_words_are_wrong(
    examples: list[Example], fitted: MergeSettings
) -> None:
    lists = [one for one in examples if one.kind == LONG_LIST]
    evidence, _ = word_evidence(lists, fitted)
    high = np.median(evidence[evidence > fitted.found_threshold])
    wrong = [replace(one, present=word_evidence([one], fitted)[0] > high) for one in lists]
    chosen = fit_thresholds([one for one in examples if one.kind == TYPED] + wrong, fitted)
    evidence, present = word_evidence(wrong, chosen)
    bar = found_threshold(len(wrong[0].present), chosen)
    assert present[evidence > fitted.found_threshold].mean() < 0.7
    assert 0.75 <= present[evidence > bar].mean() < 0.85
    assert found_threshold(4, chosen) == fitted.found_threshold


@torch.inference_mode()
def test_examples_are_scored_as_the_segmenter_scores_the_same_photo(tmp_path: Path) -> None:
    model = str(write_mini(tmp_path / "mini"))
    everything = read_named_regions(write_named_scenes(tmp_path / "data"))
    photo = next(one for one in everything if one.fold == 0)
    classifier = Classifier(load_clip(model, weights="context").compute_in(fast_dtype(torch.device("cpu"))))
    nothing = TruthSet("none", (), ())
    examples = examples_of(classifier, [photo], everything, nothing, templates="single")
    assert [one.kind for one in examples] == ["10 + 5", "3 + 3", "1 + 2", "5 + 12"]
    proposer = StoredProposals()
    proposer.show(stored_proposals(photo))
    segmenter = Segmenter(model, proposer)
    analysis = run_to_end(segmenter.compute_analysis(photo.read(), ("context",)))
    features = segmenter.embed(analysis, "context")
    for number, one in enumerate(examples):
        present, absent = MIXES[number]
        asked = make_free_question(photo, everything, present=present, absent=absent, seed=number).asked
        scores = segmenter.classifier("context").score(features, Vocabulary.of(asked), "single")
        for name in ("typed", "hidden", "photo_typed", "photo_hidden", "others", "parts"):
            # In bfloat16 batches of another size round otherwise.
            np.testing.assert_allclose(getattr(one.scores, name), getattr(scores, name), rtol=0, atol=0.05)


def test_claims_are_chosen_by_their_objective(examples: list[Example], fitted: MergeSettings) -> None:
    typed = [one for one in examples if one.kind == TYPED][:60]
    chosen = fit_claims(typed, fitted)
    timid = replace(fitted, claim_threshold=8.0)
    assert pixel_figures(typed, chosen)["pixels_right"] > pixel_figures(typed, timid)["pixels_right"] + 10


def test_confidence_is_right_on_photos_that_took_no_part(
    examples: list[Example], fitted: MergeSettings
) -> None:
    words, regions = held_out_reliability(examples, fitted)
    assert words.error < 0.05
    assert regions.error < 0.05
    assert sum(words.count) == sum(len(one.present) for one in examples)


def test_the_error_is_the_mean_distance_of_confidence_and_truth(tmp_path: Path) -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 1.0])
    one = Reliability.of(confidence, np.array([True, True, False, False, False, True]))
    assert sum(one.count) == 6
    assert one.error == pytest.approx((5 * abs(0.96 - 3 / 5) + 0.15) / 6)
    draw_reliability({"adapted": (one, one)}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (1080, 504)


@pytest.mark.parametrize("helps", [True, False])
def test_the_photo_counts_in_long_lists_as_far_as_it_helps(helps: bool) -> None:
    asked = []
    for number in range(12):
        one = example(number, "10 + 20", words=30)
        told = 20 * one.present if helps else -20 * one.present
        asked.append(replace(one, scores=replace(one.scores, photo_typed=told.astype(np.float32))))
    chosen = fit_photo_weight(asked, MergeSettings())
    assert (chosen.photo_weight > 0) == helps
    if helps:
        gained = benchmark_pixels_right(asked, chosen) - benchmark_pixels_right(asked, MergeSettings())
        assert gained > 5
