"""Select masks of a decoder, on low-resolution logits (K, h, w)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """Stability of masks under a change of threshold: IoU of the masks at +offset and -offset.

    Args:
        logits: (..., h, w) float32.

    Returns:
        (...,) float32 in 0..1; 0 where the mask is empty at -offset.
    """
    inner = (logits > offset).flatten(-2).sum(-1)
    outer = (logits > -offset).flatten(-2).sum(-1)
    return inner / outer.clamp(min=1)


def mask_iou(masks: Tensor) -> npt.NDArray[np.float32]:
    """All pairs' IoU of (K, h, w) bool masks, (K, K) float32."""
    flat = masks.flatten(1).float()
    common = flat @ flat.T
    area = common.diagonal()
    union = area[:, None] + area[None, :] - common
    iou: npt.NDArray[np.float32] = (common / union.clamp(min=1)).cpu().numpy()
    return iou


def non_max_suppression(
    iou: npt.NDArray[np.float32], score: npt.NDArray[np.float32], threshold: float
) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best score first, ties in input order."""
    kept: list[int] = []
    alive = np.ones(len(score), dtype=bool)
    for index in np.argsort(-score, kind="stable"):
        if alive[index]:
            kept.append(int(index))
            alive &= iou[index] <= threshold
    return kept


def uncovered_patches(covered: npt.NDArray[np.bool_], min_area: int) -> npt.NDArray[np.bool_]:
    """Connected uncovered parts of a (h, w) coverage map: (G, h, w) bool, large first.

    A morphological opening by one cell removes thin seams between masks. Patches of fewer than `min_area`
    cells are left out.
    """
    import cv2

    free = (~covered).astype(np.uint8)
    opened = cv2.morphologyEx(free, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = [int(i) for i in np.argsort(-areas, kind="stable") if areas[i] >= min_area]
    if not order:
        return np.zeros((0, *covered.shape), dtype=np.bool_)
    return np.stack([labels == index + 1 for index in order])


def upsample(logits: Tensor, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Resize logits, bilinearly, to (K, height, width) bool masks."""
    import cv2

    out = np.empty((len(logits), height, width), dtype=np.bool_)
    for mask, small in zip(out, logits.float().cpu().numpy(), strict=True):
        np.greater(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), 0, out=mask)
    return out
