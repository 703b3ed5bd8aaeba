"""What is computed of an array is computed once, and is not kept longer than the array."""

from __future__ import annotations

import gc

import numpy as np

from ovseg_demo.caching.array_cache import ArrayCache


def test_an_array_is_computed_once_for_each_set_of_arguments() -> None:
    asked: list[tuple[int, int]] = []

    def total(array: np.ndarray, times: int) -> int:
        asked.append((len(array), times))
        return times * int(array.sum())

    totals, three, four = ArrayCache(total), np.ones(3), np.ones(4)
    assert [totals(three, 1), totals(three, 1), totals(three, 2), totals(four, 1)] == [3, 3, 6, 4]
    assert asked == [(3, 1), (3, 2), (4, 1)]
    # An equal array is another one.
    assert totals(np.ones(3), 1) == 3
    assert len(asked) == 4


def test_values_go_with_their_arrays() -> None:
    sums = ArrayCache(lambda array: float(array.sum()))
    for number in range(20):  # ids are used again
        assert sums(np.full(5, number)) == 5 * number
    gc.collect()
    assert len(sums) == 0


def test_a_later_array_keeps_its_value_when_an_earlier_one_of_the_same_id_is_dropped() -> None:
    sums = ArrayCache(lambda array: float(array.sum()))
    first, second = np.ones(2), np.ones(3)
    assert sums(first) == 2
    # The state that a reused id leaves behind, whatever the memory allocator does.
    (key,) = sums._values
    sums(second)
    sums._values[key] = sums._values[id(second), (), ()]
    del first
    gc.collect()
    assert len(sums) == 2
