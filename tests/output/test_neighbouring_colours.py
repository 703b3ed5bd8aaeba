"""Classes that touch can be told apart at any opacity by any eye; a name keeps its colour where it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from drawn import box_mask, drawn_result
from numpy.typing import NDArray

from ovseg_demo.output.neighbouring_colours import separate_colours, touching
from ovseg_demo.output.palette import assign_colours
from ovseg_demo.result import Segmentation
from tests.output.test_palette import VISIONS, to_lab

SHAPE = (60, 90)
LEFT, RIGHT = box_mask(SHAPE, 0, 0, 45, 60), box_mask(SHAPE, 45, 0, 90, 60)


def photo(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def drawn(
    names: Sequence[str], *regions: tuple[int, NDArray[np.bool_]], image: NDArray[np.uint8] | None = None
) -> Segmentation:
    result = drawn_result(photo() if image is None else image, list(names), list(regions))
    # As the pipeline makes them, by the names alone.
    pairs = zip(result.classes, assign_colours(names), strict=True)
    return replace(result, classes=tuple(replace(c, colour=colour) for c, colour in pairs))


def least_distance(result: Segmentation, one: int, other: int, opacity: float) -> float:
    """CIELAB distance of two classes as drawn over the photo, for the kind of eye where it is least."""
    mixed = []
    for index in (one, other):
        below = result.image[result.label_map == index].mean(axis=0)
        mixed.append(below + opacity * (np.array(result.classes[index - 1].colour) - below))
    seen = (to_lab(np.stack(mixed), vision) for vision in VISIONS.values())
    return min(float(np.linalg.norm(a - b)) for a, b in seen)


@pytest.mark.parametrize("opacity", [0.25, 0.55, 0.8, 1.0])
def test_grass_and_trees_that_touch_are_apart_at_any_opacity(opacity: float) -> None:
    green = np.full((*SHAPE, 3), (70, 120, 50), np.uint8)
    before = drawn(["grass", "trees"], (1, LEFT), (2, RIGHT), image=green)
    assert least_distance(before, 1, 2, opacity) < 25 * opacity
    (after,) = separate_colours([before])
    assert least_distance(after, 1, 2, opacity) >= 25 * opacity - 1e-6
    kept = [a.colour == b.colour for a, b in zip(after.classes, before.classes, strict=True)]
    assert sorted(kept) == [False, True]


def test_what_does_not_touch_keeps_its_colour() -> None:
    far = box_mask(SHAPE, 70, 0, 90, 60)
    result = drawn(["grass", "trees"], (1, LEFT), (2, far))
    assert touching([result]) == frozenset()
    assert [c.colour for c in separate_colours([result])[0].classes] == [c.colour for c in result.classes]


def test_a_thin_bare_strip_parts_nothing() -> None:
    after_strip = box_mask(SHAPE, 47, 0, 90, 60)
    assert touching([drawn(["grass", "trees"], (1, LEFT), (2, after_strip))]) == {(0, 1), (1, 0)}


def test_both_arms_have_the_same_colours_where_classes_touch_in_only_one() -> None:
    names = ["grass", "trees"]
    touch, alone = drawn(names, (1, LEFT), (2, RIGHT)), drawn(names, (1, LEFT))
    for arms in ([touch, alone], [alone, touch]):
        first, second = separate_colours(arms)
        assert [c.colour for c in first.classes] == [c.colour for c in second.classes]
        assert [c.colour for c in first.classes] != [c.colour for c in touch.classes]


def test_the_order_of_the_words_does_not_matter() -> None:
    one = separate_colours([drawn(["grass", "trees", "cow"], (1, LEFT), (2, RIGHT))])[0]
    other = separate_colours([drawn(["cow", "trees", "grass"], (3, LEFT), (2, RIGHT))])[0]
    assert {c.name: c.colour for c in one.classes} == {c.name: c.colour for c in other.classes}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("columns", "least"), [(3, 25), (6, 18)])
def test_many_touching_classes_are_apart_and_share_no_colour(seed: int, columns: int, least: int) -> None:
    """Twelve classes in a grid, and 24, which is one for each hue and leaves less choice."""
    names = [f"word {seed} {number}" for number in range(4 * columns)]
    corners = [(15 * x, 15 * y) for y in range(4) for x in range(columns)]
    cells = [box_mask(SHAPE, left, top, left + 15, top + 15) for left, top in corners]
    result = drawn(names, *((i + 1, cell) for i, cell in enumerate(cells)), image=photo(seed))
    (after,) = separate_colours([result])
    assert len({c.colour for c in after.classes}) == len(names)
    pairs = [(a, b) for a, b in touching([after]) if a < b]
    assert len(pairs) >= 3 * columns + 4 * (columns - 1)
    for a, b in pairs:
        for opacity in (0.25, 0.55, 0.8, 1.0):
            assert least_distance(after, a + 1, b + 1, opacity) >= least * opacity - 1e-6
    kept = sum(a.colour == b.colour for a, b in zip(after.classes, result.classes, strict=True))
    assert kept >= len(names) / 2


def test_words_that_are_nowhere_change_nothing() -> None:
    result = drawn(["grass", "trees", "cow"])
    assert [c.colour for c in separate_colours([result])[0].classes] == [c.colour for c in result.classes]
    assert separate_colours([]) == ()
