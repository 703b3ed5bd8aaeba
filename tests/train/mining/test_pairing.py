"""Which region a noun goes to: the rules, and the judge that measures their precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.data.shards import Pair, PairFacts
from train.data.truth import Segment, TruthPhoto
from train.mining.features import RegionFilter
from train.mining.pairing import (
    Lexicon,
    PairRules,
    PhotoView,
    baseline_levels,
    match,
    nouns_of_photos,
    overlaps,
)
from train.mining.precision import PrecisionEvaluator
from train.mining.synonyms import coco_category

# --- the rules -------------------------------------------------------------------------------------------


def lexicon(*nouns: str, scale: float = 20.0) -> Lexicon:
    """Every noun has an axis of its own, and none is more baseline than another."""
    size = len(nouns)
    return Lexicon(nouns, np.eye(size, dtype=np.float32), scale, baseline=np.zeros(size, np.float32))


def three_regions(rows: list[list[float]]) -> PhotoView:
    """Two regions that are nearly the same and one elsewhere, all as large and as good as each other."""
    array = np.array(rows, np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    same = np.full(3, 0.2, np.float32)
    return PhotoView(array, same, same, overlaps(three_masks()))


def three_masks() -> np.ndarray:
    masks = np.zeros((3, 20, 40), np.bool_)
    masks[0, :, :20] = masks[1, :, :19] = masks[2, 5:15, 25:35] = True
    return masks


@pytest.mark.parametrize("confidence", ["contrast", "bank", "regions", "both"])
def test_a_noun_goes_to_the_region_most_like_it(confidence: str) -> None:
    view = three_regions([[1, 0.1, 0.2], [0.9, 0.2, 0.3], [0.1, 1, 0.2]])
    words = lexicon("dog", "ball", "tree")
    found = match(view, ["dog", "ball"], words, PairRules(confidence=confidence))
    assert {c.noun: c.region for c in found} == {"dog": 0, "ball": 2}
    dog = next(c for c in found if c.noun == "dog")
    assert dog.cosine == pytest.approx(float(view.features[0, 0]))
    assert dog.margin == pytest.approx(float(view.features[0, 0] - view.features[2, 0]))
    assert 0 <= dog.confidence <= 1


def test_one_region_takes_one_noun_unless_asked_otherwise() -> None:
    words = lexicon("dog", "shirt", "tree")
    view = three_regions([[1, 0.9, 0], [0.9, 0.85, 0], [0, 0, 1]])
    assert len(match(view, ["dog", "shirt"], words, PairRules(unique=False))) == 2
    (only,) = match(view, ["dog", "shirt"], words, PairRules())
    assert only.noun == "dog"


def test_a_compound_and_its_head_are_not_both_taken_for_one_region() -> None:
    words = lexicon("tennis ball", "ball", "court")
    view = three_regions([[0.9, 0.8, 0], [0.1, 0.1, 1], [0.1, 0, 0.9]])
    found = match(view, ["tennis ball", "ball"], words, PairRules(unique=False))
    assert [c.noun for c in found] == ["tennis ball"]


def test_the_threshold_drops_unsure_pairs() -> None:
    words = lexicon("dog", "ball", scale=4.0)
    view = three_regions([[1, 0], [0.9, 0.1], [0.7, 0.7]])
    rules = PairRules(confidence="bank", threshold=0.7)
    assert [c.noun for c in match(view, ["dog", "ball"], words, rules)] == ["dog"]


def test_nothing_to_match_gives_nothing() -> None:
    words = lexicon("dog")
    nothing = np.zeros(0, np.float32)
    empty = PhotoView(np.zeros((0, 1), np.float32), nothing, nothing, np.zeros((0, 0), np.float32))
    assert match(empty, ["dog"], words, PairRules()) == []
    assert match(three_regions([[1.0], [1.0], [1.0]]), [], words, PairRules()) == []


def test_of_two_regions_as_alike_the_larger_and_better_is_preferred() -> None:
    words = lexicon("dog", "ball")
    view = three_regions([[1, 0], [0, 1], [1, 0]])
    large = replace(view, area=np.array([0.1, 0.2, 0.4], np.float32))
    good = replace(view, quality=np.array([0.9, 0.5, 0.5], np.float32))
    assert match(large, ["dog"], words, PairRules())[0].region == 2
    assert match(good, ["dog"], words, PairRules())[0].region == 0


def test_a_noun_that_every_photo_seems_to_show_is_trusted_less() -> None:
    words = lexicon("dog", "ball", "tree")
    photos = [three_regions([[1, 0.2, 0.1], [1, 0.3, 0.1], [0.9, 0.3, 0.2]]) for _ in range(4)]
    baseline = baseline_levels(photos, [["tree"], [], [], []], words, PairRules())
    assert baseline[0] > baseline[1]
    sure = {}
    for noun in ("dog", "ball"):
        view = three_regions([[1, 1, 0], [0, 0, 1], [0, 0, 1]])
        (found,) = match(view, [noun], replace(words, baseline=baseline), PairRules())
        sure[noun] = found.confidence
    assert sure["dog"] < sure["ball"]


def test_photos_whose_captions_have_the_noun_do_not_count_as_usual() -> None:
    words = lexicon("dog", "ball", "tree")
    full, empty = [[1.0, 0, 0]] * 3, [[0.0, 0, 1]] * 3
    views = [three_regions(full), three_regions(empty)]
    said = baseline_levels(views, [["dog"], []], words, PairRules())
    unsaid = baseline_levels(views, [[], []], words, PairRules())
    assert said[0] < unsaid[0]


def test_tiny_thin_and_whole_regions_are_passed_over() -> None:
    masks = np.zeros((5, 100, 100), np.bool_)
    masks[0, :] = True
    masks[1, :50, :50] = True
    masks[2, :3, :] = True
    masks[3, :4, :4] = True
    assert RegionFilter().usable(masks).tolist() == [1]
    assert RegionFilter().usable(masks[:0]).tolist() == []


def test_rare_nouns_are_passed_over() -> None:
    nouns, frequency = nouns_of_photos([["A dog and a zorb"], ["Two dogs", "A dog"], []], least_photos=2)
    assert nouns == [["dog"], ["dog"], []]
    assert frequency == {"dog": 2}


def test_overlap_is_intersection_over_union() -> None:
    iou = overlaps(three_masks())
    assert iou[0, 1] == pytest.approx(19 / 20)
    assert iou[0, 2] == 0
    assert np.allclose(np.diag(iou), 1)


# --- precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noun", "category"),
    [
        ("woman", "person"),
        ("tennis player", "person"),
        ("bike", "bicycle"),
        ("dirt bike", "bicycle"),
        ("surfboard", "surfboard"),
        ("sofa", "couch"),
        ("sky", None),
    ],
)
def test_nouns_of_captions_mean_coco_categories(noun: str, category: str | None) -> None:
    names = ["person", "bicycle", "surfboard", "couch"]
    assert coco_category(noun, names) == category


def test_pairs_are_judged_by_the_instances_of_their_photo() -> None:
    halves = np.zeros((2, 40, 80), np.bool_)
    halves[0, :, :40] = halves[1, :, 40:] = True
    segments = [Segment(halves[0], 0), Segment(halves[1], 0)]
    photo = TruthPhoto(Path("000007.jpg"), lambda: segments, lambda: np.zeros((40, 80), np.uint8))
    evaluator = PrecisionEvaluator([photo], ["person", "dog"])

    def said(noun: str, box: tuple[int, int, int, int], name: str = "coco/000007") -> object:
        left, top, right, bottom = box
        facts = PairFacts(noun, 0.5, 0.2, 0.1, name, box, (20, 40), 0.1, 0.9)
        mask = np.ones((bottom - top, right - left), np.bool_)
        one = evaluator.judge(Pair(np.zeros((*mask.shape, 3), np.uint8), mask, facts))
        return one and (one.strict, one.loose)

    assert said("man", (0, 0, 20, 20)) == (True, True)
    assert said("people", (0, 0, 40, 20)) == (False, True)
    assert said("man", (0, 0, 8, 8)) == (False, False)
    assert said("dog", (0, 0, 20, 20)) is None  # none in the photo's truth
    assert said("sky", (0, 0, 20, 20)) is None
    assert said("man", (0, 0, 20, 20), "coco/other") is None


def test_labels_are_nouns_however_rare() -> None:
    captions = [["A dog runs ."], ["A dog sits on a sofa ."], []]
    nouns, photos = nouns_of_photos(captions, 2, [(), (), ("Afghan hound", "dog")])
    assert nouns == [["dog"], ["dog"], ["Afghan hound", "dog"]]
    assert photos == {"dog": 3, "Afghan hound": 1}
