"""Precision of mined pairs, judged by COCO instances of captioned train2017 photos.

    python -m train.mining.precision --pairs runs/pairs

A pair is right if its region overlaps an instance of its noun's category by an IoU over 0.5 ("strict"), or an
instance or all instances of the category together ("loose": "people" may be a group). Nouns that are no COCO
category, or one without an instance in the photo, cannot be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.core.options import DEFAULT_DATA, run_command
from train.data.shards import Pair, read_pairs
from train.data.truth import TRUTH_SETS, TruthPhoto, existing, read_instances
from train.mining.synonyms import coco_category

ENOUGH_IOU = 0.5
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PrecisionSettings:
    """Judge mined pairs by COCO instances."""

    pairs: Path
    """Folder of shards."""
    data: Path = DEFAULT_DATA
    """Folder that holds coco_subset."""
    source: str = "coco_captions"
    """Pairs of this source are judged; its photos are named by their COCO number."""
    instances: Path | None = None
    """Instances in COCO's format, instead of those in coco_subset; pairs of every source are judged."""


@dataclass(frozen=True)
class JudgedPair:
    """One judged pair."""

    score: float
    strict: bool
    loose: bool


class PrecisionEvaluator:
    """Judges pairs by the instances of the photos, which are found by name.

    Args:
        photos: with truth.
        categories: their classes.
    """

    def __init__(self, photos: Sequence[TruthPhoto], categories: Sequence[str]) -> None:
        self.categories = tuple(categories)
        self._photos = {photo.path.stem: photo for photo in photos}
        self._masks: dict[str, dict[str, list[Mask]]] = {}

    def instances(self, photo: str, noun: str) -> list[Mask]:
        """Masks (H, W) of the noun's category in the photo of this name; empty if it cannot be judged."""
        category = coco_category(noun, self.categories)
        if category is None or photo not in self._photos:
            return []
        if photo not in self._masks:
            found: dict[str, list[Mask]] = {}
            for segment in self._photos[photo].read_segments():
                found.setdefault(self.categories[segment.class_index], []).append(segment.mask)
            self._masks[photo] = found
        return self._masks[photo].get(category, [])

    def overlap(self, photo: str, noun: str, region: Mask) -> tuple[float, float] | None:
        """Best IoU of a region with one instance, and with one or all of them; None if not to be judged."""
        masks = self.instances(photo, noun)
        if not masks:
            return None
        size = region.shape[::-1]
        small = [_resized(mask, size) for mask in masks]
        strict = max(_iou(region, mask) for mask in small)
        return strict, max(strict, _iou(region, np.any(small, axis=0)))

    def judge(self, pair: Pair) -> JudgedPair | None:
        """Whether a mined pair is right; None if that cannot be said."""
        stem = pair.facts.photo.rpartition("/")[2]
        if stem not in self._photos:
            return None
        left, top, right, bottom = pair.facts.box
        height, width = pair.facts.photo_size
        region = np.zeros((height, width), dtype=np.bool_)
        region[top:bottom, left:right] = pair.mask
        overlap = self.overlap(stem, pair.facts.noun, region)
        if overlap is None:
            return None
        return JudgedPair(pair.facts.score, overlap[0] > ENOUGH_IOU, overlap[1] > ENOUGH_IOU)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), dtype=np.bool_)


def _iou(a: Mask, b: Mask) -> float:
    return int(np.count_nonzero(a & b)) / max(1, int(np.count_nonzero(a | b)))


def coco_evaluator(data: Path) -> PrecisionEvaluator:
    """The evaluator on the COCO train2017 photos with official instances."""
    truth = TRUTH_SETS["coco-train-official"](data)
    return PrecisionEvaluator(truth.photos, truth.classes)


def table(judged: Sequence[JudgedPair], shares: Sequence[float] = (1, 0.75, 0.5, 0.25, 0.1)) -> str:
    """Precision of the most confident share of the pairs, line by line."""
    ordered = sorted(judged, key=lambda one: -one.score)
    lines = ["   share   pairs  score >=  strict   loose"]
    for share in shares:
        kept = ordered[: max(1, round(share * len(ordered)))]
        strict = np.mean([one.strict for one in kept])
        loose = np.mean([one.loose for one in kept])
        lines.append(f"{share:8.0%}{len(kept):8d}{kept[-1].score:10.3f}{strict:8.1%}{loose:8.1%}")
    return "\n".join(lines)


def precision(settings: PrecisionSettings) -> str:
    """Count the pairs that can be judged, and tabulate their precision.

    Raises:
        DataError: the pairs or the truth are missing.
    """
    if settings.instances is None:
        evaluator, of = coco_evaluator(settings.data), f"{settings.source}/"
    else:
        truth = read_instances(settings.instances.stem, [(existing(settings.instances), Path())])
        evaluator, of = PrecisionEvaluator(truth.photos, truth.classes), ""
    total = 0
    judged = []
    for pair in read_pairs(settings.pairs):
        if pair.facts.photo.startswith(of):
            total += 1
            if (one := evaluator.judge(pair)) is not None:
                judged.append(one)
    said = f"{len(judged)} of {total} pairs{f' of {settings.source}' if of else ''} can be judged."
    return f"{said}\n{table(judged)}" if judged else said


def main(settings: PrecisionSettings) -> None:
    """Print the table."""
    print(precision(settings))


if __name__ == "__main__":
    run_command(main, PrecisionSettings, prog="train.mining.precision")
