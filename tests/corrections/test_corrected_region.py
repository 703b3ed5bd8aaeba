"""Corrected regions: what they take, and their JSON form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg_demo.corrections import (
    MAX_CORRECTIONS,
    CorrectedRegion,
    corrections_from_json,
    corrections_to_json,
)
from ovseg_demo.errors import CorrectionError
from tests.drawn import box_mask

SQUARE = box_mask((8, 10), 2, 3, 5, 7)


@given(arrays(np.bool_, (7, 5)), st.sampled_from([None, "dog", "犬", "Hund, klein"]))
def test_any_mask_survives_the_json_form(mask: Any, name: str | None) -> None:
    if not mask.any():
        with pytest.raises(CorrectionError, match="is empty; mark at least one pixel"):
            CorrectedRegion.of(mask, name)
        return
    region = CorrectedRegion.of(mask, name)
    text = json.dumps(corrections_to_json([region]))
    (read,) = corrections_from_json(json.loads(text), (7, 5))
    assert read == region
    assert (read.mask == mask).all() and read.name == name


def test_run_lengths_are_those_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="comes with the test extra")
    theirs = coco.encode(np.asfortranarray(SQUARE.astype(np.uint8)))
    assert CorrectedRegion.of(SQUARE, "dog").counts == theirs["counts"].decode()


def test_the_order_is_kept_and_an_empty_list_is_one() -> None:
    regions = [CorrectedRegion.of(SQUARE, name) for name in ("b", None, "a")]
    assert [r.name for r in corrections_from_json(corrections_to_json(regions), (8, 10))] == ["b", None, "a"]
    assert corrections_from_json(corrections_to_json([]), (8, 10)) == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("<b>dog</b>", "holds markup"),
        ("<script", "holds markup"),
        ("&lt;dog", "holds markup"),
        ("dog | cat", "holds a bar"),
        ("  \u200b ", "shows nothing"),
        ("x" * 101, "101 characters and at most 100"),
        ("x" * 5000, "5,000 characters"),
    ],
)
def test_names_that_cannot_be_used_are_told_in_one_sentence(name: str, why: str) -> None:
    with pytest.raises(CorrectionError, match=why) as told:
        CorrectedRegion.of(SQUARE, name)
    assert len(str(told.value)) < 200 and "\n" not in str(told.value)


def changed(**change: Any) -> dict[str, Any]:
    return corrections_to_json([CorrectedRegion.of(SQUARE, "dog")]) | change


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ({"regions": {}}, "JSON object"),
        (changed(version=2), "version '2'"),
        (changed(size=[10, 8]), "photo of 8 x 10 and this one has 10 x 8"),
        (changed(size="big"), r"\[height, width\]"),
        (changed(size=[True, 8]), r"\[height, width\]"),
        (changed(regions=[{"name": "dog"}]), "Correction 1 has no run lengths"),
        (changed(regions=[{"counts": "", "name": "dog"}]), "damaged"),
        (changed(regions=[{"counts": "é", "name": "dog"}]), "damaged"),
        (changed(regions=[{"counts": "11", "name": "dog"}]), "covers 2 pixels and the photo has 10 x 8"),
        (changed(regions=[{"counts": "`2", "name": "dog"}]), "is empty"),
        (changed(regions=[{"counts": "1", "name": 7}]), "a name is text"),
        (changed(regions=[{}] * (MAX_CORRECTIONS + 1)), "1,001 corrected regions"),
        (changed(regions=[{"counts": "1" * 5_000_000}]), "more than 4,000,000 bytes"),
    ],
)
def test_what_is_no_list_of_corrections_is_told_in_one_sentence(content: Any, why: str) -> None:
    with pytest.raises(CorrectionError, match=why):
        corrections_from_json(content, (8, 10))


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 3), np.uint8), np.zeros(3, bool), np.zeros((0, 4), bool), None]
)
def test_other_arrays_are_no_masks(mask: Any) -> None:
    with pytest.raises(CorrectionError, match="must be bool"):
        CorrectedRegion.of(mask, "dog")
