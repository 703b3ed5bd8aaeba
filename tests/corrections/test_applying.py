"""Corrections over a result."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ovseg_demo.corrections import CorrectedRegion, apply_corrections, joined_vocabulary
from ovseg_demo.errors import CorrectionError, VocabularyError
from ovseg_demo.output.export import export
from ovseg_demo.result import Segmentation
from tests.drawn import box_mask, drawn_result

SHAPE = (20, 30)
LEFT, RIGHT = box_mask(SHAPE, 0, 0, 15, 20), box_mask(SHAPE, 15, 0, 30, 20)
CORNER = box_mask(SHAPE, 0, 0, 5, 5)


@pytest.fixture
def result() -> Segmentation:
    image = np.zeros((*SHAPE, 3), np.uint8)
    return drawn_result(image, ["dog", "sky", "grass"], [(1, LEFT), (2, RIGHT)])


def test_a_correction_takes_its_pixels_and_is_marked(result: Segmentation) -> None:
    corrected = apply_corrections(result, [CorrectedRegion.of(CORNER, "Sky")])
    assert (corrected.label_map[CORNER] == 2).all() and (corrected.label_map[LEFT & ~CORNER] == 1).all()
    region = corrected.region_at(0, 0)
    assert region is not None and region.corrected and region.box == (0, 0, 5, 5)
    assert region.top == (("Sky", 1.0),) and region.confidence == 1.0
    assert [r.corrected for r in corrected.regions] == [False, False, True]
    assert corrected.masks is not None and (corrected.masks[2] == CORNER).all()
    assert (result.label_map[CORNER] == 1).all(), "the result before stays as it was"


def test_later_ones_lie_on_top(result: Segmentation) -> None:
    both = [CorrectedRegion.of(LEFT, "grass"), CorrectedRegion.of(CORNER, None)]
    corrected = apply_corrections(result, both)
    assert (corrected.label_map[CORNER] == 0).all() and (corrected.label_map[LEFT & ~CORNER] == 3).all()
    hidden = apply_corrections(result, both[::-1])
    assert (hidden.label_map[LEFT] == 3).all()
    assert len(hidden.regions) == 4, "a correction that is covered wholly stays a region"


def test_classes_are_found_where_the_map_shows_them(result: Segmentation) -> None:
    corrected = apply_corrections(result, [CorrectedRegion.of(LEFT, "grass")])
    dog, sky, grass = corrected.classes
    assert not dog.found and dog.area_fraction == 0
    assert sky.found and sky.confidence == result.classes[1].confidence
    assert grass.found and grass.confidence == 1.0 and grass.area_fraction == 0.5


def test_masks_smaller_than_the_photo_keep_thin_corrections() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    small = drawn_result(image[::2, ::2].copy(), ["dog"], [(1, LEFT)])
    big = Segmentation(
        image=image,
        label_map=np.kron(small.label_map, np.ones((2, 2), np.uint16)),
        region_map=np.kron(small.region_map, np.ones((2, 2), np.uint16)),
        classes=small.classes,
        regions=small.regions,
        timings={},
        models={},
        settings={},
        arm="adapted",
        masks=small.masks,
    )
    for x in range(4):
        one = box_mask((40, 60), x, 39, x + 1, 40)
        corrected = apply_corrections(big, [CorrectedRegion.of(one, "dog")])
        assert corrected.masks is not None and corrected.masks[1].any()


def test_other_sizes_and_unknown_names_are_refused(result: Segmentation) -> None:
    with pytest.raises(CorrectionError, match="photo of 30 x 10 and this one has 30 x 20"):
        apply_corrections(result, [CorrectedRegion.of(LEFT[:10], "dog")])
    with pytest.raises(CorrectionError, match="No class is called 'cat'"):
        apply_corrections(result, [CorrectedRegion.of(LEFT, "cat")])


def test_new_names_join_behind_the_typed_ones() -> None:
    joined = joined_vocabulary("dog, sofa | couch", ["Couch", "Rex", "rex", "DOG"])
    assert [c.synonyms for c in joined] == [("dog",), ("sofa", "couch"), ("Rex",)]
    assert joined_vocabulary("", ["Rex"]).names == ("Rex",)
    assert joined_vocabulary([], ["a, b"]).names == ("a, b",)
    with pytest.raises(VocabularyError, match="no name to look for"):
        joined_vocabulary(" ", [])
    with pytest.raises(VocabularyError, match="at most 2"):
        joined_vocabulary("a, b", ["c"], max_names=2)


def test_every_export_carries_them(result: Segmentation) -> None:
    corrected = apply_corrections(
        result, [CorrectedRegion.of(LEFT, None), CorrectedRegion.of(CORNER, "grass")]
    )
    files = export(corrected, ("json", "coco", "geojson", "yolo", "label-map", "cutouts"))
    facts, coco = json.loads(files["result.json"]), json.loads(files["coco.json"])
    assert [r["corrected"] for r in facts["regions"]] == [False, False, True, True]
    assert [r["name"] for r in facts["settings"]["corrections"]["regions"]] == [None, "grass"]
    assert {(a["category_id"], a["corrected"]) for a in coco["annotations"]} == {(2, False), (3, True)}
    assert {line[0] for line in files["yolo/labels/photo.txt"].decode().splitlines()} == {"1", "2"}
    assert "cutouts/003-grass.png" in files and "cutouts/001-dog.png" not in files
