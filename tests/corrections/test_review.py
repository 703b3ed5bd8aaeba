"""The doubtful regions of a batch come first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ovseg_demo.corrections import CorrectedRegion, apply_corrections, review_order
from ovseg_demo.result import Segmentation
from tests.drawn import box_mask, drawn_result

SHAPE = (20, 30)
BOXES = [box_mask(SHAPE, 10 * k, 0, 10 * k + 10, 20) for k in range(3)]
NAMES = ["dog", "sky", "grass"]


def result(*indices: int, arm: str = "adapted") -> Segmentation:
    image = np.zeros((*SHAPE, 3), np.uint8)
    seg = drawn_result(image, NAMES, list(zip(indices, BOXES, strict=True)), arm=arm)
    sure = [replace(r, top=(("a", 0.9), ("b", 0.05))) for r in seg.regions]
    return replace(seg, regions=tuple(sure))


def changed(seg: Segmentation, number: int, **change: object) -> Segmentation:
    regions = [replace(r, **change) if r.id == number else r for r in seg.regions]  # type: ignore[arg-type]
    return replace(seg, regions=tuple(regions))


def test_sure_regions_on_which_the_arms_agree_need_no_look() -> None:
    assert review_order({"a": [result(1, 2, 3, arm="vanilla"), result(1, 2, 3)]}) == ()


def test_disagreement_small_margins_and_unlike_examples_are_doubts() -> None:
    main = changed(result(1, 2, 3), 2, top=(("sky", 0.5), ("grass", 0.45)))
    main = changed(main, 3, nearest_example=("dog", 0.95))
    order = review_order({"a": [result(3, 2, 3, arm="vanilla"), main]})
    assert [doubt.region_id for doubt in order] == [3, 1, 2]
    like, disagree, margin = order
    assert like.reasons == ("It looks like a remembered dog.",)
    assert disagree.reasons == ("adapted says dog, vanilla says grass.",)
    assert margin.reasons == ("sky and grass are nearly as likely.",)


def test_an_example_of_the_same_name_is_no_doubt() -> None:
    main = changed(result(1, 2, 3), 3, nearest_example=("Grass", 0.99))
    assert review_order({"a": [main]}) == ()


def test_photos_are_mixed_large_regions_first_and_corrected_ones_are_left_out() -> None:
    small = changed(result(1, 2, 3), 1, top=(("dog", 0.5), ("sky", 0.5)), area_fraction=0.05)
    large = changed(result(1, 2, 3), 1, top=(("dog", 0.5), ("sky", 0.5)), area_fraction=0.5)
    assert [d.photo for d in review_order({"small": [small], "large": [large]})] == ["large", "small"]
    assert review_order({"small": [small]}, least_area=0.1) == ()
    corrected = apply_corrections(large, [CorrectedRegion.of(BOXES[0], "dog")])
    assert all(d.region_id != 4 for d in review_order({"a": [corrected]}))
