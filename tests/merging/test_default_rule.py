"""The default rule's promises, each on a case made for it."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.merging.default_rule import SPECK_CONFIDENCE, enclosed_by, merge_default
from ovseg_demo.merging.evidence import (
    MergeSettings,
    Scores,
    balanced_log_odds,
    found_threshold,
    probabilities,
)
from ovseg_demo.proposals import Proposals

SIZE = (40, 60)


def masks_of(*windows: tuple[slice, slice]) -> np.ndarray:
    masks = np.zeros((len(windows), *SIZE), dtype=bool)
    for mask, window in zip(masks, windows, strict=True):
        mask[window] = True
    return masks


def merged_of(masks: np.ndarray, typed: list[list[float]], settings: MergeSettings, **more: object):  # type: ignore[no-untyped-def]
    logits = np.array(typed, dtype=np.float32)
    scores = Scores(
        typed=logits,
        hidden=np.zeros((len(logits), 1), np.float32),
        photo_typed=logits.max(axis=0),
        photo_hidden=np.zeros(1, np.float32),
        others=np.zeros(len(logits), np.float32),
        **more,  # type: ignore[arg-type]
    )
    proposals = Proposals.of(masks, np.full(len(masks), 0.9, np.float32))
    assert (proposals.masks == masks).all()  # given large ones first
    return merge_default(scores, proposals, settings)


SKY_AND_PLANE = masks_of((slice(0, 40), slice(0, 60)), (slice(15, 22), slice(20, 40)))
SKY_AND_PLANE[0][SKY_AND_PLANE[1]] = False


def test_the_sky_around_an_airplane_is_no_airplane() -> None:
    merged = merged_of(SKY_AND_PLANE, [[3.0], [6.0]], MergeSettings(surround_margin=1.0))
    assert merged.region_class.tolist() == [0, 1]
    assert merged.label_map[0, 0] == 0
    assert merged.label_map[18, 30] == 1


def test_what_surrounds_takes_its_next_word() -> None:
    merged = merged_of(SKY_AND_PLANE, [[3.0, 2.5], [6.0, -5.0]], MergeSettings(surround_margin=1.0))
    assert merged.region_class.tolist() == [2, 1]


def test_grass_around_a_patch_of_grass_that_is_as_sure_keeps_its_word() -> None:
    merged = merged_of(SKY_AND_PLANE, [[3.0], [3.5]], MergeSettings(surround_margin=1.0))
    assert merged.region_class.tolist() == [1, 1]


def test_the_whole_keeps_its_word_beside_a_surer_part_that_it_contains() -> None:
    dog_and_head = masks_of((slice(5, 35), slice(5, 55)), (slice(10, 20), slice(10, 25)))
    merged = merged_of(dog_and_head, [[3.0], [6.0]], MergeSettings(surround_margin=1.0))
    assert merged.region_class.tolist() == [1, 1]


def test_enclosed_pixels_have_the_mask_on_three_sides() -> None:
    sea = np.zeros((5, 7), dtype=bool)
    sea[2:] = True
    sea[2, 3] = False  # open above only
    assert np.argwhere(enclosed_by(sea) & ~sea).tolist() == [[2, 3]]


def test_enclosed_pixels_are_those_that_sweeps_from_three_sides_reach() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.1, 0.5):
        mask = rng.random((17, 23)) < share
        sweeps = [
            np.maximum.accumulate(mask, axis=1),
            np.maximum.accumulate(mask[:, ::-1], axis=1)[:, ::-1],
            np.maximum.accumulate(mask, axis=0),
            np.maximum.accumulate(mask[::-1], axis=0)[::-1],
        ]
        assert np.array_equal(enclosed_by(mask), np.sum(sweeps, axis=0) >= 3)


CAR_AND_WHEEL = masks_of((slice(5, 35), slice(5, 55)), (slice(25, 35), slice(10, 20)))
PARTS = {"parts": np.array([[-9.0], [5.0]], np.float32), "wholes": np.array([[True, False]])}


def test_a_wheel_goes_to_the_car_where_wheel_was_not_typed() -> None:
    typed = [[6.0, -3.0], [0.5, 2.0]]
    without = merged_of(CAR_AND_WHEEL, typed, MergeSettings())
    assert without.region_class.tolist() == [1, 2]
    merged = merged_of(CAR_AND_WHEEL, typed, MergeSettings(), **PARTS)
    assert merged.region_class.tolist() == [1, 1]
    assert merged.found.tolist() == [True, False]
    assert merged.region_confidence[1] == pytest.approx(merged.probabilities[1, 0])
    assert merged.probabilities.sum(axis=1).max() <= 1 + 1e-5


def test_a_wheel_without_a_car_beside_it_stays_as_it_is() -> None:
    apart = masks_of((slice(0, 20), slice(0, 20)), (slice(30, 38), slice(40, 55)))
    merged = merged_of(apart, [[6.0, -3.0], [0.5, 2.0]], MergeSettings(), **PARTS)
    assert merged.region_class.tolist() == [1, 2]


def test_a_speck_is_found_but_never_sure() -> None:
    speck = masks_of((slice(10, 12), slice(10, 12)))
    merged = merged_of(speck, [[9.0]], MergeSettings())
    assert merged.found.tolist() == [True]
    assert merged.confidence[0] == pytest.approx(SPECK_CONFIDENCE)
    large = merged_of(masks_of((slice(10, 20), slice(10, 20))), [[9.0]], MergeSettings())
    assert large.confidence[0] > 0.99


def test_the_threshold_rises_with_the_length_of_the_list_and_the_confidence_does_not_fall() -> None:
    settings = MergeSettings(list_threshold=2.0)
    assert found_threshold(15, settings) == found_threshold(3, settings) == 0.0
    assert found_threshold(150, settings) == pytest.approx(2 * np.log(10))
    masks = masks_of((slice(0, 30), slice(0, 60)))
    word = [2.0, *[-9.0] * 99]
    assert merged_of(masks, [word], MergeSettings()).found[0]
    long_list = merged_of(masks, [word], settings)
    assert not long_list.found[0]
    assert long_list.confidence[0] == merged_of(masks, [word], MergeSettings()).confidence[0]


def test_an_unassigned_region_says_what_beat_the_typed_words() -> None:
    masks = masks_of((slice(0, 40), slice(0, 60)), (slice(10, 20), slice(10, 20)))
    merged = merged_of(masks, [[-4.0], [5.0]], MergeSettings(), hidden_names=("countertop",))
    assert merged.region_class.tolist() == [0, 1]
    assert merged.closest_hidden == ("countertop", "")


def test_a_region_shows_the_same_confidence_as_its_list_of_names() -> None:
    masks = masks_of((slice(0, 40), slice(0, 60)))
    settings = MergeSettings(logit_scale=0.5, hidden_bias=-1.0)
    merged = merged_of(masks, [[2.0, 1.0]], settings)
    weights = np.exp([1.0, 0.5, -1.0])
    np.testing.assert_allclose(merged.probabilities[0], weights[:2] / weights.sum(), rtol=1e-5)
    assert merged.region_confidence[0] == merged.probabilities[0, 0]


def test_numbers_of_an_earlier_rule_are_not_taken_over() -> None:
    assert MergeSettings.of({"claim_bias": 1.5, "specificity": 0.3}) == MergeSettings()
    assert MergeSettings.of({"specificity": 0.3}).specificity == 0.3


def test_strictness_moves_the_thresholds_and_no_confidence() -> None:
    masks = masks_of((slice(0, 40), slice(0, 60)))
    plain, strict = (merged_of(masks, [[1.0]], MergeSettings().stricter(by)) for by in (0.0, 5.0))
    assert (plain.found[0], strict.found[0]) == (True, False)
    assert plain.confidence == strict.confidence


def test_probabilities_without_hidden_names_add_up_to_one() -> None:
    shares = probabilities(np.array([[1.0, 2.0]], np.float32), np.zeros((1, 0), np.float32))
    assert shares.sum() == pytest.approx(1)


THREE_REGIONS = masks_of(
    (slice(0, 40), slice(0, 20)), (slice(0, 40), slice(20, 40)), (slice(0, 40), slice(40, 60))
)


def test_a_word_that_fits_every_region_a_little_yields_to_the_word_that_fits_some() -> None:
    typed = [[4.0, -4.0], [4.0, 3.5], [4.0, 3.4]]
    assert merged_of(THREE_REGIONS, typed, MergeSettings()).region_class.tolist() == [1, 2, 1]
    shared = merged_of(THREE_REGIONS, typed, MergeSettings(balance=0.8))
    assert shared.region_class.tolist() == [1, 2, 2]


def test_a_single_found_word_and_words_not_found_are_not_reduced() -> None:
    odds = np.array([[3.0, 1.0, -5.0], [2.0, 4.0, -6.0]], np.float32)
    settings = MergeSettings(balance=1.0)
    one = np.array([True, False, False])
    assert np.array_equal(balanced_log_odds(odds, one, settings), odds)
    two = np.array([True, True, False])
    shared = balanced_log_odds(odds, two, settings)
    together = np.logaddexp(odds[0], odds[1])
    price = together[:2] - together[:2].mean()
    assert shared[:, :2] == pytest.approx(odds[:, :2] - price, rel=1e-5)
    assert np.array_equal(shared[:, 2], odds[:, 2])
    assert np.array_equal(balanced_log_odds(odds, ~(one | two), settings), odds)


def test_the_confidence_of_a_claim_is_corrected_and_the_other_words_share_the_rest() -> None:
    masks = masks_of((slice(0, 40), slice(0, 60)))
    plain = merged_of(masks, [[2.0, 1.0]], MergeSettings())
    merged = merged_of(masks, [[2.0, 1.0]], MergeSettings(confidence_bias=1.0))
    odds = [one.region_confidence[0] / (1 - one.region_confidence[0]) for one in (plain, merged)]
    assert odds[1] / odds[0] == pytest.approx(np.e, rel=1e-4)
    assert merged.region_confidence[0] == merged.probabilities[0, 0]
    rest = [(1 - one.probabilities[0].sum()) / one.probabilities[0, 1] for one in (plain, merged)]
    assert rest[0] == pytest.approx(rest[1], rel=1e-3)
