"""Random changes to the crop of a region, so that training does not see the same picture twice."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Crop = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""(h, w, 3) uint8, the box around a region, and (h, w) bool, the region in it."""

_TRIES = 3
_LEAST_KEPT = 0.5
_EDGE_SHARE = 0.03
_LEAST_EDGE_SIDE_PX = 12


def cut_sides(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> Crop:
    """Cut up to `share` off height and width (like RandomResizedCrop 0.9..1), if some of the region stays."""
    height, width = mask.shape
    top, bottom = (int(v) for v in rng.uniform(0, share / 2 * height, 2))
    left, right = (int(v) for v in rng.uniform(0, share / 2 * width, 2))
    window = np.s_[top : height - bottom, left : width - right]
    return (image[window], mask[window]) if mask[window].any() else (image, mask)


def augmented(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> Crop:
    """Another view of a region: sides cut off, the edge moved, the light changed.

    Args:
        image, mask: the crop of a region.
        share: largest share of height and width that is cut off; a cut that would leave less than half of the
            region is drawn again, at most twice.
        rng: decides everything.
    """
    for _ in range(_TRIES):
        some_image, some_mask = cut_sides(image, mask, share, rng)
        if some_mask.sum() > _LEAST_KEPT * mask.sum():
            image, mask = some_image, some_mask
            break
    return _relit(image, rng), _moved_edge(mask, rng)


def _moved_edge(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Erode or dilate the mask, each in a fifth of the cases, as proposals are too small or large."""
    draw = rng.random()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    if draw > 0.4 or side <= _LEAST_EDGE_SIDE_PX:
        return mask
    reach = max(1, int(_EDGE_SHARE * side))
    change = cv2.erode if draw < 0.2 else cv2.dilate
    moved = change(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    return moved if moved.any() else mask


def _relit(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Contrast and brightness by up to a fifth, each colour channel by up to a sixteenth."""
    channels = 1 + rng.uniform(-1 / 16, 1 / 16, 3)
    brightness, contrast = 1 + rng.uniform(-0.2, 0.2, 2)
    pixels = (image.astype(np.float32) - 128) * contrast + 128
    return np.asarray(np.clip(pixels * brightness * channels, 0, 255), dtype=np.uint8)
