"""The true regions of a data set as crops, masked or with the whole rectangle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.regions import Regions, crop_regions
from train.data.truth import TruthSet

LEAST_SIDE = 30
"""Instances whose box has a side under 30 pixels are left out: there is nothing to recognise."""


@dataclass(frozen=True)
class RegionBatch:
    """Feature-ready regions of a data set, in batches."""

    regions: Regions
    classes: Tensor


def true_regions(
    truth: TruthSet, model: MaskAdaptedCLIP, *, masked: bool, photos: int
) -> Iterator[RegionBatch]:
    """The true regions of each photo as crops; unmasked ones keep the whole rectangle."""
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
        yield RegionBatch(
            crop_regions(photo.read(), masks, model.crop_recipe),
            torch.tensor([s.class_index for s in segments]),
        )


def _large_enough(mask: np.ndarray) -> bool:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return bool(len(rows) and min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 >= LEAST_SIDE)
