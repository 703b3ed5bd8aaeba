"""The true regions of a data set, by their masks or as whole rectangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from train.data.truth import TruthSet

LEAST_SIDE = 30
"""Instances whose box has a side under 30 pixels are left out: there is nothing to recognise."""


@dataclass(frozen=True)
class RegionBatch:
    """The regions of one photo.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (R, H, W) bool.
        classes: (R,) int64 index of each region's class.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    classes: Tensor


def true_regions(truth: TruthSet, *, masked: bool, photos: int) -> Iterator[RegionBatch]:
    """The true regions of each photo; unmasked ones are the whole rectangles around them."""
    title = f"{truth.name} {'masked' if masked else 'unmasked'}"
    for photo in tqdm(truth.photos[: photos or None], desc=title):
        segments = [s for s in photo.read_segments() if _large_enough(s.mask)]
        if not segments:
            continue
        masks = np.stack([s.mask for s in segments])
        if not masked:
            for mask in masks:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        yield RegionBatch(photo.read(), masks, torch.tensor([s.class_index for s in segments]))


def _large_enough(mask: np.ndarray) -> bool:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return bool(len(rows) and min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 >= LEAST_SIDE)
