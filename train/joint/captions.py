"""Captioned photos: features of the frozen stem and of the vanilla tower, and their captions' vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.errors import SettingsError
from ovseg_demo.regions import crop_regions
from train.data.feature_cache import Tensors, cached_features
from train.data.named_regions import held_out_photos, photo_key
from train.data.sources import Photo, coco_captions, flickr8k, food_photos, path_below

CAPTIONED: dict[str, Callable[[Path], list[Photo]]] = {
    # Settings are chosen on its val photos.
    "flickr8k": partial(flickr8k, splits=("train",)),
    "coco_captions": coco_captions,
    "food_photos": food_photos,
}
"""The data folders with sentences."""

_PHOTOS_AT_ONCE = 16
_SENTENCES_AT_ONCE = 2048


@dataclass(frozen=True)
class CaptionBatch:
    """W whole photos of one step.

    Attributes:
        stems: (W, C, h, w) float32, the stem's output for the photos as crops.
        vanilla: (W, D) float32, vanilla's unit vectors of the same.
        sentences: (W + N, 384) float32, one caption of each photo, then captions of none of them.
    """

    stems: Tensor
    vanilla: Tensor
    sentences: Tensor


class CaptionedPhotos:
    """Kept features of photos with captions.

    Args:
        photos: with at least one caption each.
        vanilla: the vanilla model, in the number type it is fast in.
        data: the folder below which the photos lie; names them in the key of what is kept.
        work: folder that the features are kept in.
    """

    def __init__(self, photos: Sequence[Photo], vanilla: MaskAdaptedCLIP, data: Path, work: Path) -> None:
        names = [path_below(photo.path, data) or str(photo.path) for photo in photos]
        key = f"{_digest(names)}/{vanilla.stem_id}/{vanilla.weights_sha256}"
        tower: Any = vanilla.image_tower

        def compute(rows: range) -> Tensors:
            crops = torch.cat([_whole(photos[row], vanilla) for row in rows])
            stems = tower.stem(crops.to(vanilla.dtype))
            seen = [tower.from_stem(some).float() for some in (stems, stems.flip(3))]
            vectors = functional.normalize(torch.stack(seen, dim=1), dim=-1)
            return {"stems": stems.half(), "vanilla": vectors.half()}

        kept = cached_features(work, "captioned", key, len(photos), compute, at_once=_PHOTOS_AT_ONCE)
        self.stems, self.vanilla = kept["stems"], kept["vanilla"]
        sentences = [caption for photo in photos for caption in photo.captions]
        self.sentences = sentence_vectors(vanilla, sentences, work, "captions")
        self._starts = np.cumsum([0, *(len(photo.captions) for photo in photos)])

    def __len__(self) -> int:
        return len(self.stems)

    def batch(self, count: int, others: int, rng: np.random.Generator) -> CaptionBatch:
        """Draw photos, half of them mirrored, a caption of each, and captions of other photos."""
        rows = rng.choice(len(self), min(count, len(self)), replace=False)
        flips = rng.random(len(rows)) < 0.5
        stems = self.stems[rows].float()
        stems = torch.where(torch.from_numpy(flips)[:, None, None, None], stems.flip(3), stems)
        vanilla = self.vanilla[rows, flips.astype(int)].float()
        own = [int(rng.integers(self._starts[row], self._starts[row + 1])) for row in rows]
        taken = np.concatenate([np.arange(self._starts[row], self._starts[row + 1]) for row in rows])
        drawn = rng.choice(len(self.sentences), min(others, len(self.sentences)), replace=False)
        sentences = self.sentences[[*own, *drawn[~np.isin(drawn, taken)]]].float()
        return CaptionBatch(stems, vanilla, sentences)


def captioned_photos(root: Path, names: Sequence[str]) -> list[Photo]:
    """Training photos with captions, without those of fold 0 of the named regions.

    Raises:
        SettingsError: a data folder is not known.
        DataError: it is missing.
    """
    unknown = [name for name in names if name not in CAPTIONED]
    if unknown:
        raise SettingsError(f"--captions knows {', '.join(CAPTIONED)}, not {unknown[0]!r}.")
    held_out = held_out_photos(root)
    photos = [photo for name in names for photo in CAPTIONED[name](root)]
    return [photo for photo in photos if photo.captions and photo_key(photo.path) not in held_out]


def sentence_vectors(clip: MaskAdaptedCLIP, sentences: Sequence[str], work: Path, what: str) -> Tensor:
    """(n, 384) float16 unit vectors of sentences before any text map; computed once."""
    text = cast(MiniTextTower, clip.text_tower)

    def compute(rows: range) -> Tensors:
        return {"vectors": text.sentence_vectors([sentences[row] for row in rows]).half()}

    return cached_features(
        work, what, _digest(sentences), len(sentences), compute, at_once=_SENTENCES_AT_ONCE
    )["vectors"]


def _whole(photo: Photo, clip: MaskAdaptedCLIP) -> Tensor:
    image = photo.read()
    return crop_regions(image, np.ones((1, *image.shape[:2]), dtype=bool), clip.crop_recipe).crops


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()
