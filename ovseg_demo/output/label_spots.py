"""Where names are written on a picture: the middle of the largest box inside each connected area."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.result import UNASSIGNED, Comparison, Segmentation

__all__ = ["LabelSpot", "change_spots", "label_spots"]

_MAX_SEARCH_SIDE = 512
"""Side of the copy of the label map on which names are placed, exact to a few pixels."""


@dataclass(frozen=True)
class LabelSpot:
    """A place for a class name: the middle of the largest box inside one connected area."""

    class_index: int
    x: float
    """Centre, as a share of the photo's width."""
    y: float
    """Centre, as a share of the photo's height."""
    half_width: float
    """Free space to each side, as a share of the photo's width."""
    half_height: float
    """Free space above and below, as a share of the photo's height."""
    area_fraction: float
    """Of the connected area, 0..1."""
    from_index: int = UNASSIGNED
    """The class this area had before, where a change is labelled."""


def label_spots(seg: Segmentation, *, min_area_fraction: float = 0.002) -> tuple[LabelSpot, ...]:
    """Where names can be written, largest area first; one spot for each connected area of a class."""
    small = _small(seg.label_map)
    spots = [
        spot for c in seg.found for spot in _spots_of_class(small == c.index, c.index, min_area_fraction)
    ]
    return tuple(sorted(spots, key=lambda s: -s.area_fraction))


def change_spots(comparison: Comparison, *, min_area_fraction: float = 0.002) -> tuple[LabelSpot, ...]:
    """Label spots of areas whose class differs between the arms; `class_index` is the second arm's."""
    before, after = (_small(arm.label_map) for arm in comparison.arms)
    pairs = np.unique(np.stack([before, after])[:, before != after], axis=1).T
    spots = [
        replace(spot, from_index=int(old))
        for old, new in pairs
        for spot in _spots_of_class((before == old) & (after == new), int(new), min_area_fraction)
    ]
    return tuple(sorted(spots, key=lambda s: -s.area_fraction))


def _small(label_map: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    height, width = label_map.shape
    scale = min(1.0, _MAX_SEARCH_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(label_map, size, interpolation=cv2.INTER_NEAREST))


def _spots_of_class(mask: npt.NDArray[np.bool_], index: int, min_area: float) -> Iterator[LabelSpot]:
    height, width = mask.shape
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    for part in range(1, count):
        left, top, w, h, area = (int(v) for v in stats[part])
        if area < min_area * mask.size:
            continue
        inside = parts[top : top + h, left : left + w] == part
        # Words are wider than high. Squeezed to a third of its width, a wide box becomes a square one, and
        # the chessboard distance to the edge finds the largest square.
        squeezed = cv2.resize(
            inside.astype(np.uint8), (max(1, round(w / 3)), h), interpolation=cv2.INTER_AREA
        )
        room = cv2.distanceTransform(np.pad(squeezed, 1), cv2.DIST_C, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(room)), room.shape)
        reach = float(room[y, x])
        ratio = w / squeezed.shape[1]
        yield LabelSpot(
            class_index=index,
            x=(left + (float(x) + 0.5) * ratio) / width,
            y=(top + float(y) + 0.5) / height,
            half_width=reach * ratio / width,
            half_height=reach / height,
            area_fraction=area / mask.size,
        )
