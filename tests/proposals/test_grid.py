"""Points lie inside the image, evenly, and early ones far apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_demo.proposals.grid import grid_shape, spread_points

sides = st.integers(1, 5000)


@settings(deadline=None)
@given(count=st.integers(1, 400), height=sides, width=sides)
def test_a_grid_has_about_as_many_points_as_asked_for(count: int, height: int, width: int) -> None:
    rows, columns = grid_shape(count, height, width)
    assert rows >= 1
    assert columns >= 1
    assert count / 2 <= rows * columns <= count * 1.5


def test_cells_are_about_square() -> None:
    assert grid_shape(64, 480, 640) == (7, 9)
    assert grid_shape(64, 1000, 1000) == (8, 8)
    assert grid_shape(64, 1, 4000) == (1, 64)


@settings(deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_every_cell_is_visited_once_at_its_centre(rows: int, columns: int) -> None:
    points = spread_points(rows, columns)
    cells = {(round(y * rows - 0.5), round(x * columns - 0.5)) for x, y in points.tolist()}
    assert cells == {(row, column) for row in range(rows) for column in range(columns)}
    assert len(points) == rows * columns


def test_a_batch_of_consecutive_points_is_spread_out() -> None:
    points = spread_points(12, 16)
    for start in range(0, len(points) - 8):
        batch = points[start : start + 8] * [16, 12]
        distance = np.linalg.norm(batch[:, None] - batch[None], axis=-1) + np.eye(8) * 99
        assert distance.min() >= 2
