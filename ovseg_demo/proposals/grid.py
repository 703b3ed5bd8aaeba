"""Grids of point prompts with nearly square cells, in an order that spreads early points far apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def grid_shape(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of about `count` nearly square cells for an image; at least one of each."""
    columns = max(1, min(count, round((count * width / height) ** 0.5)))
    return max(1, round(count / columns)), columns


def spread_points(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Centres of the cells as (rows * columns, 2) float32 x, y in 0..1, neighbours far apart in the order.

    The order visits the cells by a golden-ratio stride, so that any run of consecutive points is spread over
    the image: prompts of one batch rarely hit the same object.
    """
    count = rows * columns
    stride = max(1, round(count * 0.6180339887498949))
    while np.gcd(stride, count) != 1:
        stride += 1
    cells = np.arange(count) * stride % count
    x = (cells % columns + 0.5) / columns
    y = (cells // columns + 0.5) / rows
    return np.stack([x, y], axis=1).astype(np.float32)
