"""The outlines of the regions that are found while a visitor waits.

They travel as paths, not as pictures: some 200 bytes a region, sharp on any screen. Every step has all of
them, so that a step may get lost; Gradio sends what is new in it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.progress import Progress

__all__ = ["ProposalPreview", "outline"]

_MOST = 200
_SAME = 0.7
"""Of two masks with a higher IoU one is drawn."""
_COMPARED_SIDE = 128
"""Longer side at most, in cells, at which masks are compared."""
_CELL = 4
"""Units of a path across one pixel of a mask, so that paths are whole numbers."""
_BEYOND = 3 * _CELL
"""How far outside the picture its edge is drawn, in units."""
_TOLERANCE = 0.8
"""How far, in pixels of the mask, a path may run beside the edge."""
_SPECK = 4
"""Pixels that a part must enclose to be drawn."""


class ProposalPreview:
    """What is drawn on the photo while one request is worked on."""

    def __init__(self) -> None:
        self._finding = False
        self._forget()

    def _forget(self) -> None:
        self._waiting: list[NDArray[np.bool_]] = []
        self._paths: list[str] = []
        self._cells: list[NDArray[np.float32]] = []
        self._size = (0, 0)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def pending(self) -> bool:
        """Whether masks have come since the last `payload`."""
        return bool(self._waiting)

    @property
    def growing(self) -> bool:
        """Whether there is something to see already and more is to come."""
        return self._finding and len(self) > 0

    def take(self, progress: Progress) -> None:
        """Note the masks of a step; they cost nothing until `payload` is asked for."""
        if progress.stage in ("read", "embed"):
            self._forget()
        self._finding = progress.stage == "propose"
        if progress.masks is not None and len(progress.masks):
            self._waiting.append(progress.masks)

    def payload(self) -> dict[str, Any] | None:
        """What the viewer draws, None if nothing.

        Returns:
            `paths`, one for each region, as SVG writes them, on a picture of `width` and `height` units; the
            last `fresh` of them are new while regions are still being found.
        """
        before = len(self)
        for masks in self._waiting:
            self._add(masks)
        self._waiting = []
        if not self._paths:
            return None
        height, width = self._size
        return {
            "width": _CELL * width,
            "height": _CELL * height,
            "paths": list(self._paths),
            "fresh": len(self) - before if self._finding else 0,
        }

    def _add(self, masks: NDArray[np.bool_]) -> None:
        """Draw (k, h, w) masks that are not drawn yet."""
        self._size = (masks.shape[1], masks.shape[2])
        step = max(1, -(-max(self._size) // _COMPARED_SIDE))
        cells = masks[:, ::step, ::step].reshape(len(masks), -1).astype(np.float32)
        before = len(self)
        overlap = _iou(cells, np.stack([*self._cells, *cells]))
        drawn = list(range(len(self)))
        for number, mask in enumerate(masks):
            if len(self) >= _MOST:
                break
            if self._finding and (overlap[number, drawn] > _SAME).any():
                continue
            if path := outline(mask):
                drawn.append(before + number)
                self._paths.append(path)
                self._cells.append(cells[number])


def _iou(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(a, b) IoU of masks of 0 and 1, (a, cells) and (b, cells); 0 where both are empty."""
    common = some @ others.T
    union = some.sum(axis=1)[:, None] + others.sum(axis=1)[None] - common
    iou: NDArray[np.float32] = common / np.maximum(union, 1)
    return iou


def outline(mask: NDArray[np.bool_]) -> str:
    """The edge of a (h, w) mask as an SVG path of lines, "" if it is no more than a speck.

    What runs along the edge of the picture lies outside of it, where it is not seen.
    """
    height, width = mask.shape
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = []
    for contour in found:
        points = cv2.approxPolyDP(contour, _TOLERANCE, closed=True)[:, 0]
        if len(points) < 3 or cv2.contourArea(points) < _SPECK:
            continue
        units = _CELL * points + _CELL // 2
        for axis, length in enumerate((width, height)):
            units[points[:, axis] == 0, axis] = -_BEYOND
            units[points[:, axis] == length - 1, axis] = _CELL * length + _BEYOND
        parts.append("M" + "L".join(f"{x} {y}" for x, y in units.tolist()) + "Z")
    return "".join(parts)
