"""The default merge rule: nested masks do not add up, hidden names win over absent words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg_demo.merging import MergeSettings, Scores, log_odds, merge, merge_default, probabilities
from ovseg_demo.merging.evidence import LONG_LIST
from ovseg_demo.proposals import Proposals

SIZE = (12, 16)
PLAIN = MergeSettings()


def proposals_of(*windows: tuple[slice, slice], quality: float = 0.9) -> Proposals:
    masks = np.zeros((len(windows), *SIZE), dtype=bool)
    for mask, window in zip(masks, windows, strict=True):
        mask[window] = True
    boxes = np.array([[w[1].start, w[0].start, w[1].stop, w[0].stop] for w in windows], dtype=np.int32)
    return Proposals(masks, np.full(len(windows), quality, dtype=np.float32), boxes.reshape(-1, 4))


def scores_of(
    typed: list[list[float]], hidden: list[list[float]], photo: list[float] | None = None
) -> Scores:
    regions = np.array(typed, dtype=np.float32)
    return Scores(
        typed=regions,
        hidden=np.array(hidden, dtype=np.float32),
        photo_typed=np.array(photo or regions.max(axis=0), dtype=np.float32),
        photo_hidden=np.zeros(len(hidden[0]), dtype=np.float32),
        others=np.zeros(len(regions), dtype=np.float32),
    )


WHOLE = (slice(0, 12), slice(0, 16))
SMALL = (slice(3, 6), slice(4, 8))


def test_a_small_region_inside_a_large_one_keeps_its_own_word() -> None:
    proposals = proposals_of(WHOLE, SMALL)
    merged = merge_default(scores_of([[6, 0], [0, 6]], [[0], [0]]), proposals, PLAIN)
    assert (merged.label_map[SMALL] == 2).all()
    assert merged.label_map[0, 0] == 1
    assert (merged.region_map[SMALL] == 2).all()


def test_nested_masks_of_one_class_do_not_outvote_a_surer_region() -> None:
    proposals = proposals_of(WHOLE, WHOLE, WHOLE, SMALL)
    typed = [[2, 0], [2, 0], [2, 0], [0, 5]]
    merged = merge_default(scores_of(typed, [[0]] * 4), proposals, PLAIN)
    assert (merged.label_map[SMALL] == 2).all()


def test_a_word_that_hidden_names_outweigh_everywhere_is_not_found() -> None:
    merged = merge_default(scores_of([[1, 5]], [[4]], photo=[-4, 5]), proposals_of(WHOLE), PLAIN)
    assert merged.found.tolist() == [False, True]
    assert set(np.unique(merged.label_map)) == {2}


def test_one_word_that_is_not_there_claims_nothing() -> None:
    merged = merge_default(scores_of([[0]], [[5]]), proposals_of(WHOLE), PLAIN)
    assert not merged.found.any()
    assert (merged.label_map == 0).all()
    assert merged.region_class.tolist() == [0]


def test_without_a_hidden_name_every_region_takes_its_best_word() -> None:
    scores = scores_of([[1, 5], [9, 2]], [[], []], photo=[0, 0])
    merged = merge_default(scores, proposals_of(WHOLE, SMALL), PLAIN)
    assert merged.region_class.tolist() == [2, 1]
    assert merged.found.all()
    assert np.isfinite(merged.confidence).all()


def test_no_proposals_give_an_empty_result() -> None:
    scores = Scores(
        np.zeros((0, 2), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros(2, np.float32),
        np.zeros(3, np.float32),
        np.zeros(0, np.float32),
    )
    for rule in ("default", "benchmark", "published-demo"):
        merged = merge(rule, scores, Proposals.empty(*SIZE), ("a", "b"), PLAIN)
        assert merged.label_map.shape == SIZE
        assert not merged.label_map.any()
        assert not merged.found.any()


@pytest.mark.parametrize("rule", ["benchmark", "published-demo"])
def test_published_rules_speak_the_same_result(rule: str) -> None:
    merged = merge(
        rule, scores_of([[3, 0], [0, 8]], [[0], [0]]), proposals_of(WHOLE, SMALL), ("a", "b"), PLAIN
    )
    assert merged.found.all()
    assert merged.label_map[0, 0] == 1
    assert merged.probabilities.shape == (2, 2)


def test_the_published_demo_leaves_what_others_wins_blank() -> None:
    scores = Scores(
        typed=np.array([[5.0], [0.0]], np.float32),
        hidden=np.zeros((2, 1), np.float32),
        photo_typed=np.zeros(1, np.float32),
        photo_hidden=np.zeros(1, np.float32),
        others=np.array([0.0, 5.0], np.float32),
    )
    merged = merge("published-demo", scores, proposals_of(SMALL, WHOLE), ("cat",), PLAIN)
    assert (merged.label_map[SMALL] == 1).all()
    assert merged.label_map[0, 0] == 0


def test_log_odds_ignore_the_other_typed_names() -> None:
    hidden = np.array([[0.0, 1.0]], np.float32)
    alone = log_odds(np.array([[3.0]], np.float32), hidden)
    beside = log_odds(np.array([[3.0, 9.0]], np.float32), hidden)
    assert alone[0, 0] == pytest.approx(beside[0, 0])


logits = st.floats(-30, 30, width=32)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(0, 5), names=st.integers(1, 4), hidden=st.integers(1, 3))
def test_every_merge_is_consistent_and_repeatable(
    data: st.DataObject, count: int, names: int, hidden: int
) -> None:
    masks = data.draw(arrays(bool, (count, *SIZE)))
    masks[:, 0, 0] = True  # a proposal has at least one pixel
    quality = data.draw(arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    proposals = Proposals.of(masks, quality)
    scores = Scores(
        typed=data.draw(arrays(np.float32, (count, names), elements=logits)),
        hidden=data.draw(arrays(np.float32, (count, hidden), elements=logits)),
        photo_typed=data.draw(arrays(np.float32, names, elements=logits)),
        photo_hidden=data.draw(arrays(np.float32, hidden, elements=logits)),
        others=np.zeros(count, np.float32),
    )
    merged = merge_default(scores, proposals, PLAIN)
    again = merge_default(scores, proposals, PLAIN)
    assert (merged.label_map == again.label_map).all()
    assert set(np.unique(merged.label_map)) - {0} == set(np.flatnonzero(merged.found) + 1)
    for k in set(np.unique(merged.region_map)) - {0}:
        where = merged.region_map == k
        assert proposals.masks[k - 1][where].all()
        assert (merged.label_map[where] == merged.region_class[k - 1]).all()
    assert ((merged.confidence >= 0) & (merged.confidence <= 1)).all()
    assert ((merged.label_map == 0) == (merged.region_map == 0)).all()


@given(arrays(np.float32, (3, 4), elements=logits), arrays(np.float32, (3, 2), elements=logits))
def test_probabilities_leave_the_hidden_names_their_share(typed: np.ndarray, hidden: np.ndarray) -> None:
    shares = probabilities(typed, hidden)
    assert (shares >= 0).all()
    assert (shares.sum(axis=1) <= 1 + 1e-5).all()


@pytest.mark.parametrize(("count", "expected"), [(LONG_LIST, 1), (LONG_LIST + 1, 2)])
def test_the_photo_speaks_beside_the_regions_of_long_lists_in_the_published_rules(
    count: int, expected: int
) -> None:
    typed = [5.0, 4.0] + [0.0] * (count - 2)
    photo = [0.0, 9.0] + [0.0] * (count - 2)
    scores, names = scores_of([typed], [[0]], photo), [f"word {n}" for n in range(count)]
    proposals = proposals_of(WHOLE)
    weighed = MergeSettings(photo_weight=0.5)
    assert (merge("benchmark", scores, proposals, names, weighed).label_map == expected).all()
    assert (merge("benchmark", scores, proposals, names, PLAIN).label_map == 1).all()
    default = merge("default", scores, proposals, names, weighed)
    assert (default.label_map == merge_default(scores, proposals, PLAIN).label_map).all()
