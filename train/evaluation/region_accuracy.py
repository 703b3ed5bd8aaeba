"""Accuracy of names of true regions, for the ablations.

Features that do not depend on the training are computed once and kept: the stem's features of every region
for the compact tower. For other towers the crops are cut again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.regions import crop_regions
from train.core.files import write_tensors
from train.data.true_regions import true_regions
from train.data.truth import TRUTH_SETS, read_one_of


@dataclass(frozen=True)
class RegionAccuracy:
    """Regions by class: how many there are and how many were named right, (C,) each."""

    regions: np.ndarray
    right: np.ndarray

    def top1(self, classes: Sequence[int] | None = None) -> float:
        """Percent of the regions of these classes, all by default; NaN if there are none."""
        chosen = list(range(len(self.regions)) if classes is None else classes)
        seen = self.regions[chosen].sum()
        return float(100 * self.right[chosen].sum() / seen) if seen else float("nan")

    def per_class(self) -> float:
        """Percent, mean over the classes that have regions."""
        seen = self.regions > 0
        return float(100 * (self.right[seen] / self.regions[seen]).mean())


class RegionEvaluator:
    """The true regions of a data set.

    Args:
        name: of the data set, one of `TRUTH_SETS`.
        data: folder that holds the data folders.
        photos: only the first so many; 0 = all.
        keep: folder for what is computed once.

    Raises:
        DataError: there is no such set, or a part of it is missing.
    """

    def __init__(self, name: str, data: Path, *, photos: int, keep: Path) -> None:
        self.truth = read_one_of(TRUTH_SETS, name, data)
        self.name, self.photos, self.keep = name, photos, keep

    @torch.inference_mode()
    def evaluate(self, clip: MaskAdaptedCLIP, *, masked: bool = True) -> RegionAccuracy:
        """Name every region by its closest class name ("vild" templates).

        Args:
            clip: the model.
            masked: background painted over and prompts used, or the plain rectangle.
        """
        names = clip.encode_text(self.truth.classes, "vild")
        regions, right = (np.zeros(len(names), dtype=np.int64) for _ in range(2))
        for features, classes in self._features(clip, masked):
            logits = clip.region_logits(features.cpu().numpy(), names.cpu().numpy(), self.truth.classes)
            guess = torch.from_numpy(logits.argmax(1))
            np.add.at(regions, classes.numpy(), 1)
            np.add.at(right, classes[guess == classes].numpy(), 1)
        return RegionAccuracy(regions, right)

    def _features(self, clip: MaskAdaptedCLIP, masked: bool) -> Any:
        tower: Any = clip.image_tower
        if not hasattr(tower, "from_stem") or clip.sees_photo:
            for batch in true_regions(self.truth, masked=masked, photos=self.photos):
                yield clip.encode_photo_regions(batch.image, batch.masks, use_prompts=masked), batch.classes
            return
        cached = self._stems(clip, masked)
        for start in range(0, len(cached["classes"]), 64):
            some = slice(start, start + 64)
            mask = cached["masks"][some].float() if masked else None
            features = tower.from_stem(cached["stems"][some].to(clip.dtype), mask)
            yield functional.normalize(features.float(), dim=-1), cached["classes"][some]

    def _stems(self, clip: MaskAdaptedCLIP, masked: bool) -> dict[str, Tensor]:
        tower: Any = clip.image_tower
        digest = hashlib.sha256(f"{self.name}/{self.photos}/{masked}/{clip.stem_id}".encode())
        path = self.keep / f"regions_{digest.hexdigest()[:16]}.safetensors"
        if path.is_file():
            return load_file(path)
        stems, masks, classes = [], [], []
        for batch in true_regions(self.truth, masked=masked, photos=self.photos):
            regions = crop_regions(batch.image, batch.masks, clip.crop_recipe)
            pixels = regions.crops.to(clip.dtype).contiguous(memory_format=torch.channels_last)
            stems.append(tower.trunk.stem(pixels).half().contiguous())
            masks.append(token_mask(regions.masks, tower.patch).half())
            classes.append(batch.classes)
        cached = {"stems": torch.cat(stems), "masks": torch.cat(masks), "classes": torch.cat(classes)}
        write_tensors(path, cached)
        return cached
