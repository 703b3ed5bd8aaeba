"""What examples add to the scores of regions."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.memory import MemorySettings, memory_evidence, residuals_of

NUMBERS = MemorySettings(width=0.1, doubt=0.3, weight=4.0)


def near(cosine: float, axis: int = 1) -> np.ndarray:
    """A unit vector of that cosine with the first axis."""
    row = np.zeros(8, np.float32)
    row[0], row[axis] = cosine, (1 - cosine**2) ** 0.5
    return row


REGION = near(1.0)[None]


def evidence(examples: list[np.ndarray], owners: list[int], shares: list[list[float]]) -> np.ndarray:
    residuals = residuals_of(np.array(shares, np.float32), np.array(owners))
    return memory_evidence(REGION, np.stack(examples), residuals, NUMBERS)[0]


def test_an_alike_region_takes_the_name_and_leaves_the_one_it_was_mistaken_for() -> None:
    gained, lost = evidence([near(0.95)], [0], [[0.1, 0.8]])
    assert 1.5 < gained < 4 and -4 < lost < -1


def test_an_example_that_was_right_before_teaches_nothing() -> None:
    assert np.abs(evidence([near(0.95)], [0], [[1.0, 0.0]])).max() < 1e-5


def test_a_region_like_no_example_stays_as_it_is() -> None:
    assert np.abs(evidence([near(0.3), near(-0.2)], [0, 1], [[0.0, 0.9], [0.5, 0.0]])).max() < 0.02


def test_three_examples_count_more_than_one_and_outvote_a_wrong_one() -> None:
    wrong, right = [0.9, 0.0], [0.0, 0.9]
    one = evidence([near(0.85)], [0], [right])
    three = evidence([near(0.85, axis) for axis in (1, 2, 3)], [0, 0, 0], [right] * 3)
    assert three[0] > 1.4 * one[0] > 0
    mixed = evidence([near(0.85, axis) for axis in (1, 2, 3, 4)], [0, 0, 0, 1], [right] * 3 + [wrong])
    assert mixed[0] > mixed[1]


def test_examples_of_names_that_nobody_asks_for_teach_nothing() -> None:
    assert not evidence([near(0.99)], [-1], [[0.5, 0.5]]).any()
    assert memory_evidence(REGION, np.zeros((0, 8), np.float32), np.zeros((0, 2), np.float32)).shape == (1, 2)
    assert memory_evidence(REGION[:0], REGION, np.ones((1, 2), np.float32)).shape == (0, 2)


def test_evidence_is_bounded_however_many_examples_there_are() -> None:
    rows = [near(1.0)] * 1000
    assert evidence(rows, [0] * 1000, [[0.0, 1.0]] * 1000) == pytest.approx([4, -4], abs=0.01)
