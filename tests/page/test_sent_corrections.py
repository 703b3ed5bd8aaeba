"""Corrections as the viewer sends them, laid over a result for files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ovseg_demo.errors import CorrectionError, ResourceError
from ovseg_demo.output.mask_formats import encode_rle
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import load_examples
from ovseg_demo.page.sent_corrections import full_mask, with_sent_corrections
from ovseg_demo.result import Comparison


@pytest.fixture(scope="module")
def result() -> Comparison:
    ready = example_result(load_examples()[0])
    assert ready is not None
    return ready.result


def sent(result: Comparison, name: str | None, scale: int = 1) -> dict[str, Any]:
    height, width = (side // scale for side in result.second.label_map.shape)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    region = {"counts": encode_rle(mask), "full": None, "name": name}
    return {"map": [height, width], "regions": [region], "colours": {"bessie": [1, 2, 3]}}


def test_a_new_name_is_a_class_of_both_arms_in_the_viewers_colour(result: Comparison) -> None:
    corrected = with_sent_corrections(result, sent(result, "Bessie"))
    assert isinstance(corrected, Comparison)
    height, width = result.second.label_map.shape
    for before, arm in zip(result.arms, corrected.arms, strict=True):
        assert arm.classes[-1].name == "Bessie" and arm.classes[-1].colour == (1, 2, 3)
        assert arm.label_map[height * 3 // 8, width * 3 // 8] == arm.classes[-1].index
        assert arm.region_at(width * 3 // 8, height * 3 // 8).corrected  # type: ignore[union-attr]
        outside = np.ones((height, width), dtype=np.bool_)
        outside[height // 4 : height // 2, width // 4 : width // 2] = False
        assert (arm.label_map[outside] == before.label_map[outside]).all()
        assert arm.settings["corrections"]["regions"][0]["name"] == "Bessie"


def test_many_corrections_can_be_stopped_between_two(result: Comparison) -> None:
    content = sent(result, "Bessie")
    content["regions"] *= 3
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 8:  # in the second arm: three are read, and three laid over the first
            raise ResourceError("This took too long.")

    with pytest.raises(ResourceError):
        with_sent_corrections(result, content, check)


def test_masks_of_a_smaller_map_cover_the_same_share(result: Comparison) -> None:
    corrected = with_sent_corrections(result.second, sent(result, None, scale=2))
    assert not isinstance(corrected, Comparison)
    region = corrected.regions[-1]
    assert region.class_index == 0
    assert region.area_fraction == pytest.approx(1 / 16, rel=0.02)


def test_what_is_no_list_of_corrections_is_refused(result: Comparison) -> None:
    good = sent(result, "Bessie")
    for content in (None, [], {}, {"regions": 5}, good | {"map": [0, 5]}, good | {"regions": [5]}):
        with pytest.raises(CorrectionError):
            with_sent_corrections(result, content)
    other = replace(result.second, image=result.second.image, settings={})
    with pytest.raises(CorrectionError, match="photo"):
        full = {"counts": "", "full": encode_rle(np.ones((3, 3), dtype=np.bool_)), "name": "x"}
        with_sent_corrections(other, good | {"regions": [full]})
    with pytest.raises(CorrectionError, match="empty"):
        full_mask(encode_rle(np.zeros((4, 4), dtype=np.bool_)), (4, 4), (8, 8))
