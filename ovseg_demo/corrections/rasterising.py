"""Polygons to masks: a pixel is inside if its centre is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_CROSSINGS = 20_000_000
"""Most rows that the edges of one annotation may cross together."""


def filled(rings: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The union of polygons, each filled by the even-odd rule.

    Args:
        rings: (N, 2) corners x, y in pixels, N >= 3; parts outside the picture are cut off.
        size: height and width of the picture.

    Raises:
        ValueError: the edges are too long for a picture of any size.
    """
    mask = np.zeros(size, dtype=np.bool_)
    for ring in rings:
        mask |= _one(ring, size)
    return mask


def _one(ring: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    height, width = size
    start, end = ring, np.roll(ring, -1, axis=0)
    top, bottom = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    # Rows whose centre lies in [top, bottom): a corner on a centre belongs to one of its two edges.
    first = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)
    after = np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64)
    counts = after - first
    if counts.sum() > MAX_CROSSINGS:
        raise ValueError(f"the edges of a polygon cross {counts.sum():,} rows")
    edge = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    crossing = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), dtype=np.uint8)
    np.bitwise_xor.at(turns, (rows, columns), np.uint8(1))
    return np.asarray(np.bitwise_xor.accumulate(turns, axis=1)[:, :width] > 0)
