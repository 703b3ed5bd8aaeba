"""A result explains every pixel it shows, and refuses to exist otherwise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ovseg_demo.result import ClassResult, RegionResult, Segmentation, compare, percent


def make_class(index: int, name: str, *, area: float = 0.0) -> ClassResult:
    return ClassResult(
        name=name,
        synonyms=(name,),
        index=index,
        colour=(40 * index, 90, 200),
        found=area > 0,
        area_fraction=area,
        confidence=0.75 if area else 0.1,
    )


def make_region(region_id: int, class_index: int, box: tuple[int, int, int, int]) -> RegionResult:
    return RegionResult(
        id=region_id,
        box=box,
        area_fraction=0.5,
        class_index=class_index,
        confidence=0.8,
        quality=0.9,
        top=(("cat", 0.8), ("dog", 0.1)),
    )


@pytest.fixture
def result() -> Segmentation:
    """A 4 x 2 photo: cat on the left half, nothing on the right, and no dog."""
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.uint16)
    return Segmentation(
        image=np.zeros((2, 4, 3), np.uint8),
        label_map=labels,
        region_map=np.where(labels == 1, 3, 0).astype(np.uint16),
        classes=(make_class(1, "cat", area=0.5), make_class(2, "dog")),
        regions=(make_region(3, 1, (0, 0, 2, 2)), make_region(5, 0, (2, 0, 4, 2))),
        timings={"total": 0.25},
        models={"classifier": "tiny"},
        settings={"merge": "default"},
        arm="adapted",
    )


def test_facts_about_a_result(result: Segmentation) -> None:
    assert result.size == (4, 2)
    assert [c.name for c in result.found] == ["cat"]
    assert [c.name for c in result.not_found] == ["dog"]
    assert result.unassigned_fraction == 0.5


def test_region_at_answers_what_decided_a_pixel(result: Segmentation) -> None:
    hit = result.region_at(1, 1)
    assert hit is not None and hit.id == 3
    assert result.region_at(3, 0) is None
    with pytest.raises(KeyError):
        result.region(4)


def test_json_holds_everything_but_pixels(result: Segmentation) -> None:
    told = json.loads(json.dumps(result.to_json()))
    assert told["width"] == 4 and told["height"] == 2 and told["arm"] == "adapted"
    assert [(c["name"], c["found"]) for c in told["classes"]] == [("cat", True), ("dog", False)]
    assert told["regions"][0]["top"][0] == {"name": "cat", "score": 0.8}
    assert told["timings"] == {"total": 0.25}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label_map": np.full((2, 4), 3, np.uint16)}, "label_map uses values that nothing explains"),
        ({"region_map": np.full((2, 4), 4, np.uint16)}, "region_map uses values that nothing explains"),
        ({"label_map": np.zeros((4, 2), np.uint16)}, "must be uint16"),
        ({"image": np.zeros((2, 4, 4), np.uint8)}, "photo must be uint8"),
        ({"classes": (make_class(2, "dog"),)}, "numbered"),
        ({"regions": (make_region(3, 1, (0, 0, 1, 1)),) * 2}, "same id"),
        ({"regions": (make_region(3, 9, (0, 0, 1, 1)),)}, "not asked for"),
        ({"arm": ""}, "name of its arm"),
        ({"masks": np.zeros((1, 2, 4), np.bool_)}, "masks must be bool"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(
    result: Segmentation, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(result, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"box": (2, 0, 2, 2)}, {"confidence": 1.2}, {"top": (("a", 0.1), ("b", 0.2))}, {"id": 0}],
)
def test_an_impossible_region_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(make_region(1, 0, (0, 0, 1, 1)), **change)  # type: ignore[arg-type]


def test_equal_arms_agree(result: Segmentation) -> None:
    comparison = compare(replace(result, arm="vanilla"), result)
    assert comparison.changed_fraction == 0 and comparison.renamed == ()
    assert comparison.verdict == "Both arms agree on every pixel."


def test_the_verdict_counts_pixels_and_regions_and_takes_no_side(result: Segmentation) -> None:
    vanilla = replace(
        result,
        arm="vanilla",
        label_map=np.array([[2, 1, 0, 0], [1, 1, 0, 0]], np.uint16),
        regions=(make_region(3, 2, (0, 0, 2, 2)), make_region(5, 0, (2, 0, 4, 2))),
    )
    comparison = compare(vanilla, result)
    assert comparison.changed_fraction == pytest.approx(1 / 8)
    assert comparison.renamed == (3,)
    assert comparison.verdict.startswith("12 % of pixels changed; 1 region renamed")
    assert comparison.to_json()["renamed"] == [{"id": 3, "vanilla": "dog", "adapted": "cat"}]


def test_the_verdict_names_words_that_only_one_arm_finds(result: Segmentation) -> None:
    vanilla = replace(
        result,
        arm="vanilla",
        label_map=np.where(result.label_map == 1, 2, 0).astype(np.uint16),
        classes=(make_class(1, "cat"), make_class(2, "dog", area=0.5)),
        regions=(make_region(3, 2, (0, 0, 2, 2)), make_region(5, 0, (2, 0, 4, 2))),
    )
    verdict = compare(vanilla, result).verdict
    assert (
        verdict == "50 % of pixels changed; 1 region renamed; only adapted finds cat; only vanilla finds dog."
    )


def test_any_two_arms_are_compared_but_none_with_itself(result: Segmentation) -> None:
    vanilla = replace(result, arm="vanilla", label_map=np.zeros_like(result.label_map))
    comparison = compare(result, vanilla)
    assert [arm.arm for arm in comparison.arms] == comparison.to_json()["arms"] == ["adapted", "vanilla"]
    with pytest.raises(ValueError, match="both results are of the arm adapted"):
        compare(result, result)


def test_shares_are_written_as_people_say_them() -> None:
    assert [percent(f) for f in (0.0, 0.004, 0.014, 0.5, 1.0)] == ["0 %", "< 1 %", "1 %", "50 %", "100 %"]
