"""What a result says in plain words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import box_mask, drawn_result

from ovseg_demo.page.sentences import difference, headline, timing
from ovseg_demo.result import Segmentation, compare

SHAPE = (40, 60)
NAMES = ["pizza", "bottle", "plate", "dog", "cat", "cow", "owl"]
LEFT, RIGHT = box_mask(SHAPE, 0, 0, 30, 40), box_mask(SHAPE, 30, 0, 60, 40)


def result(*regions: tuple[int, np.ndarray], names: list[str] = NAMES, arm: str = "adapted") -> Segmentation:
    return drawn_result(np.zeros((*SHAPE, 3), np.uint8), names, list(regions), arm=arm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "names", "said"),
    [
        ([(1, LEFT), (2, RIGHT)], NAMES[:2], "Pizza and bottle found."),
        ([(1, LEFT), (2, RIGHT)], NAMES[:4], "Pizza and bottle found; no plate or dog."),
        ([(1, LEFT)], NAMES, "Pizza found; no bottle, plate or 4 more."),
        ([], NAMES, "None of these words fit."),
        ([], ["dog"], "This word does not fit."),
    ],
)
def test_the_headline_says_what_was_found_and_what_was_not(
    seen: list[tuple[int, np.ndarray]], names: list[str], said: str
) -> None:
    assert headline(result(*seen, names=names)) == said


def test_the_comparison_is_told_in_words_and_takes_no_side() -> None:
    plain = result((1, LEFT), (4, RIGHT), arm="vanilla")
    adapted = result((1, LEFT), (2, RIGHT))
    assert difference(compare(plain, adapted)) == (
        "The adapted CLIP also finds bottle. The plain CLIP also finds dog. "
        "Where the adapted CLIP sees bottle, the plain CLIP sees dog (50 % of the photo)."
    )
    same = difference(compare(replace(adapted, arm="vanilla"), adapted))
    assert same == "The adapted CLIP and the plain CLIP say the same everywhere."


def test_only_a_short_wait_for_words_alone_is_instant() -> None:
    again = replace(result((1, LEFT)), timings={"propose": 0.0, "embed": 0.0, "text": 15.9})
    assert timing((again,), 16.7) == ("Only the words were scored again: 16.7 s (words 15.9 s).", False)
    assert timing((again,), 0.3)[1]
    fresh = replace(again, timings={"propose": 2.0, "embed": 1.0, "text": 0.01})
    assert timing((fresh,), 0.3) == ("Done in 0.3 s (regions 2.0 s, CLIP 1.0 s).", False)
