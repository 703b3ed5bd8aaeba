"""What the frozen stem of the mini tower makes of the crops of pairs, computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.context import patch_share
from ovseg_demo.regions import crop_regions
from train.data.augment import Crop, augmented
from train.data.feature_cache import Tensors, cached_features
from train.data.pair_folder import PairFolder

CROPS_AT_ONCE = 32


def stem_views(
    folder: PairFolder, clip: MaskAdaptedCLIP, work: Path, *, views: int, jitter: float
) -> list[Tensors]:
    """Views of every masked crop: the crop as it is, then augmented ones.

    Args:
        folder: the pairs.
        clip: a model whose stem all towers share.
        work: folder that the features are kept in.
        views: how many.
        jitter: largest share of height and width that is cut off in the augmented ones.

    Returns:
        per view `stems` (P, C, h, w) float16 and `share` (P, 7, 7) float16, the region's share of each patch.
    """
    return [_stem_view(folder, clip, work, view, jitter) for view in range(views)]


def _stem_view(folder: PairFolder, clip: MaskAdaptedCLIP, work: Path, view: int, jitter: float) -> Tensors:
    def compute(rows: range) -> Tensors:
        crops = [folder.crop(row) for row in rows]
        if view:
            crops = [
                augmented(*crop, jitter, np.random.default_rng([view, row]))
                for crop, row in zip(crops, rows, strict=True)
            ]
        return stems_of(clip, crops)

    key = f"{folder.digest}/{clip.stem_id}/{view}/{jitter if view else 0}"
    return cached_features(work, "stems", key, len(folder), compute, at_once=CROPS_AT_ONCE)


def unlabeled_stems(folder: PairFolder, clip: MaskAdaptedCLIP, work: Path) -> Tensors:
    """The same of the regions without a noun, the crops as they are."""

    def compute(rows: range) -> Tensors:
        return stems_of(clip, [folder.unlabeled_crop(row) for row in rows])

    key = f"{folder.unlabeled_digest}/{clip.stem_id}"
    return cached_features(
        work, "unlabeled", key, len(folder.candidate_nouns), compute, at_once=CROPS_AT_ONCE
    )


def stems_of(clip: MaskAdaptedCLIP, crops: Sequence[Crop]) -> Tensors:
    """What the stem makes of crops, and how much of each patch the region covers."""
    tower: Any = clip.image_tower
    cut = [crop_regions(image, mask[None], clip.crop_recipe) for image, mask in crops]
    stems = tower.stem(torch.cat([region.crops for region in cut]).to(clip.dtype))
    share = patch_share(torch.cat([region.masks for region in cut]), tower.patch)
    return {"stems": stems.half(), "share": share.half()}


def mirrored(stems: Tensor, share: Tensor, chosen: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Mirror the chosen rows of stem features (B, C, h, w) and shares (B, h, w) left to right."""
    rows = torch.tensor(chosen, dtype=torch.bool)
    return (
        torch.where(rows[:, None, None, None], stems.flip(3), stems),
        torch.where(rows[:, None, None], share.flip(2), share),
    )
