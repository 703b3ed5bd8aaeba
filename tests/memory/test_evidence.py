"""What examples add to the scores of regions."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.memory import MemorySettings, lacks_of, memory_evidence

NUMBERS = MemorySettings(width=0.1, doubt=0.1, margin=1.0, most=15.0)


def near(cosine: float, axis: int = 1) -> np.ndarray:
    """A unit vector of that cosine with the first axis."""
    row = np.zeros(8, np.float32)
    row[0], row[axis] = cosine, (1 - cosine**2) ** 0.5
    return row


REGION = near(1.0)[None]


def evidence(examples: list[np.ndarray], owners: list[int], odds: list[list[float]]) -> np.ndarray:
    lacks = lacks_of(np.array(odds, np.float32), np.array(owners), NUMBERS)
    return memory_evidence(REGION, np.stack(examples), lacks, NUMBERS)[0]


def test_an_alike_region_gets_about_what_the_name_of_the_example_lacks() -> None:
    for own, other, lack in ((-4.0, 2.0, 7.0), (-4.0, -9.0, 5.0), (1.0, 0.5, 0.5)):
        gained, rest = evidence([near(0.99)], [0], [[own, other]])
        assert 0.85 * lack < gained <= lack and rest == 0


def test_an_example_that_was_right_before_teaches_nothing() -> None:
    assert not evidence([near(0.95)], [0], [[5.0, 1.0]]).any()


def test_a_region_like_no_example_stays_as_it_is() -> None:
    assert evidence([near(0.3), near(-0.2)], [0, 1], [[-9.0, 0.9], [0.5, -9.0]]).max() < 0.2


def test_three_examples_count_more_than_one_and_outvote_a_wrong_one() -> None:
    one = evidence([near(0.75)], [0], [[-4.0, 0.0]])
    three = evidence([near(0.75, axis) for axis in (1, 2, 3)], [0, 0, 0], [[-4.0, 0.0]] * 3)
    assert three[0] > 1.2 * one[0] > 0
    rows, owners = [near(0.85, axis) for axis in (1, 2, 3, 4)], [0, 0, 0, 1]
    right, wrong = evidence(rows, owners, [[3.0, -1.0]] * 4)
    assert right == 0 and wrong < 1.5 < evidence(rows[3:], [1], [[3.0, -1.0]])[1]


def test_examples_of_names_that_nobody_asks_for_teach_nothing() -> None:
    assert not evidence([near(0.99)], [-1], [[0.5, 0.5]]).any()
    assert memory_evidence(REGION, np.zeros((0, 8), np.float32), np.zeros((0, 2), np.float32)).shape == (1, 2)
    assert memory_evidence(REGION[:0], REGION, np.ones((1, 2), np.float32)).shape == (0, 2)
    assert lacks_of(np.array([[-3.0]], np.float32), np.array([0])).tolist() == [[4.0]]


def test_evidence_is_bounded_however_many_examples_there_are() -> None:
    gained = evidence([near(1.0)] * 1000, [0] * 1000, [[-90.0, 1.0]] * 1000)
    assert gained == pytest.approx([15, 0], abs=0.01)
