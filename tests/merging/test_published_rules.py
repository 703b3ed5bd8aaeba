"""The paper's two rules where its own code fails; test_published_parity.py compares the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ovseg_demo.merging.published_rules import (
    class_scores,
    demo_names,
    hard_masks,
    keep_picked,
    label_map,
    mask_probabilities,
    merge_published,
)

NONE = torch.zeros(0, dtype=torch.int64)


def sides(*columns: slice) -> Tensor:
    """One hard mask per slice of columns, in a picture of 4 x 8."""
    masks = torch.zeros(len(columns), 4, 8)
    for mask, where in zip(masks, columns, strict=True):
        mask[:, where] = 1
    return masks


LEFT, RIGHT = slice(0, 4), slice(4, 8)


def certain(*classes: int, of: int, logit: float = 10) -> Tensor:
    """Logits that name the given class, one row each."""
    logits = torch.zeros(len(classes), of)
    logits[torch.arange(len(classes)), list(classes)] = logit
    return logits


@pytest.mark.parametrize("rule", ["benchmark", "published-demo"])
class TestBothRules:
    def test_every_pixel_gets_the_name_of_its_mask(self, rule):
        maps = merge_published(
            rule, ["cat", "dog"], sides(LEFT, RIGHT), certain(1, 0, of=2), torch.tensor([0, 1])
        )
        assert maps.label_map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 4
        assert maps.region_map.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]] * 4

    def test_a_single_usable_mask_is_a_batch_of_one(self, rule):
        maps = merge_published(rule, ["cat", "dog"], sides(LEFT), certain(1, of=2), torch.tensor([0]))
        assert maps.label_map.tolist() == [[2] * 4 + [0] * 4] * 4

    def test_without_any_usable_mask_everything_stays_blank(self, rule):
        empty = torch.zeros(2, 4, 8)
        maps = merge_published(rule, ["cat", "dog"], empty, torch.zeros(0, 2), NONE)
        assert not maps.label_map.any() and not maps.region_map.any()
        assert maps.probabilities.shape == (2, 2)

    def test_without_any_mask_everything_stays_blank(self, rule):
        maps = merge_published(rule, ["cat", "dog"], torch.zeros(0, 4, 8), torch.zeros(0, 2), NONE)
        assert maps.label_map.tolist() == [[0] * 8] * 4

    def test_an_unusable_mask_does_not_move_the_others(self, rule):
        masks = torch.cat([torch.zeros(1, 4, 8), sides(LEFT, RIGHT)])
        maps = merge_published(rule, ["cat", "dog"], masks, certain(1, 0, of=2), torch.tensor([1, 2]))
        assert maps.label_map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 4
        assert maps.region_map.tolist() == [[2, 2, 2, 2, 3, 3, 3, 3]] * 4

    def test_an_unusable_mask_and_a_weight_for_clip_go_together(self, rule):
        masks = torch.cat([torch.zeros(1, 4, 8), sides(LEFT, RIGHT)])
        maps = merge_published(
            rule,
            ["cat", "dog"],
            masks,
            certain(1, 0, of=2),
            torch.tensor([1, 2]),
            segmenter_logits=certain(0, 1, 0, of=3),
            weight=0.7,
        )
        assert maps.label_map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 4

    def test_the_segmenter_alone_can_classify(self, rule):
        segmenter = certain(1, 0, of=3)
        maps = merge_published(
            rule, ["cat", "dog"], sides(LEFT, RIGHT), None, NONE, segmenter_logits=segmenter
        )
        assert maps.label_map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 4

    def test_masks_of_booleans_are_masks(self, rule):
        masks = sides(LEFT, RIGHT).bool()
        maps = merge_published(rule, ["cat", "dog"], masks, certain(1, 0, of=2), torch.tensor([0, 1]))
        assert maps.label_map.tolist() == [[2, 2, 2, 2, 1, 1, 1, 1]] * 4

    def test_scores_not_labels_are_brought_to_the_wanted_size(self, rule):
        maps = merge_published(
            rule, ["cat", "dog"], sides(LEFT, RIGHT), certain(1, 0, of=2), torch.tensor([0, 1]), size=(3, 24)
        )
        assert maps.label_map.tolist() == [[2] * 12 + [1] * 12] * 3
        assert maps.region_map.shape == (3, 24)


def test_the_benchmark_adds_overlapping_masks_up():
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    masks = sides(LEFT, LEFT, LEFT)
    maps = merge_published("benchmark", ["cat", "dog"], masks, logits, torch.arange(3))
    # One mask has the highest probability, for the dog; two masks have the cat.
    assert (maps.label_map[:, LEFT] == 1).all()
    assert (maps.region_map[:, LEFT] == 1).all()


def test_the_demo_uses_one_mask_per_class():
    weights = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    assert torch.equal(keep_picked(weights, rival=False), torch.tensor([[0, 0], [0.9, 0.1], [0.3, 0.7]]))


def test_in_the_demo_others_picks_no_mask():
    weights = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    assert torch.equal(keep_picked(weights, rival=True), torch.tensor([[0.9, 0.1], [0, 0]]))


def test_the_demo_gives_a_single_name_a_rival_and_leaves_the_callers_list_alone():
    names = ["cat"]
    assert demo_names(names) == ("cat", "others")
    assert names == ["cat"]
    assert demo_names(["cat", "dog"]) == ("cat", "dog")


def test_where_the_rival_wins_the_only_name_is_not_painted():
    maps = merge_published("published-demo", ["cat"], sides(LEFT), certain(1, of=2), torch.tensor([0]))
    assert not maps.label_map.any()
    assert not maps.region_map.any()


def test_a_pixel_counts_for_a_hard_mask_strictly_above_the_threshold():
    soft = torch.tensor([[[0.3, 0.5, 0.6]]])
    assert hard_masks(soft, 0.5).tolist() == [[[0, 0, 1]]]


class TestProbabilities:
    clip, segmenter = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0, 5.0], [1.0, 1.0, 1.0]])
    index = torch.tensor([1])

    def test_clip_alone_leaves_unusable_masks_without_a_say(self):
        p = mask_probabilities(2, self.clip, self.index, self.segmenter, 0.0)
        assert p[0].tolist() == [0, 0]
        torch.testing.assert_close(p[1], self.clip[0].softmax(0))

    def test_no_object_is_dropped_after_the_segmenters_softmax(self):
        p = mask_probabilities(2, None, NONE, self.segmenter, 0.0)
        torch.testing.assert_close(p, self.segmenter.softmax(1)[:, :2])
        assert p[0].sum() < 0.1

    def test_both_are_multiplied_and_unusable_masks_keep_the_segmenters_part(self):
        p = mask_probabilities(2, self.clip, self.index, self.segmenter, 0.7)
        a, b = self.segmenter.softmax(1)[:, :2], self.clip.softmax(1)
        torch.testing.assert_close(p[1], a[1] ** 0.3 * b[0] ** 0.7)
        torch.testing.assert_close(p[0], a[0] ** 0.3)

    @pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
    def test_a_weight_out_of_range_is_refused(self, weight):
        with pytest.raises(ValueError, match="weight of CLIP"):
            mask_probabilities(2, self.clip, self.index, self.segmenter, weight)

    def test_a_weight_needs_a_segmenter(self):
        with pytest.raises(ValueError, match="Without logits of a segmenter"):
            mask_probabilities(2, self.clip, self.index, None, 0.7)

    def test_logits_for_another_number_of_masks_are_refused(self):
        with pytest.raises(ValueError, match="3 masks but logits for 2"):
            mask_probabilities(3, None, NONE, self.segmenter, 0.0)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'best'"):
        merge_published("best", ["cat"], sides(LEFT), certain(0, of=2), torch.tensor([0]))


def test_many_classes_are_decided_in_parts_with_the_same_result(monkeypatch):
    weights = torch.rand(5, 40, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(1))
    expected = class_scores(weights, masks).argmax(dim=0) + 1
    assert torch.equal(label_map(weights, masks), expected)
    monkeypatch.setattr("ovseg_demo.merging.published_rules._NUMBERS_AT_ONCE", 3 * 6 * 7)
    assert torch.equal(label_map(weights, masks), expected)
