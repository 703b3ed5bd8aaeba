"""The batches of the pretraining: views of photos with their captions and names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from train.data.sources import Photo
from train.mining.photos import photos_digest
from train.pretraining.settings import PretrainSettings
from train.pretraining.text_bank import TextBank
from train.pretraining.views import write_views


@dataclass(frozen=True)
class Batch:
    """One step's input: wide views first, then narrow ones."""

    photos: list[int]
    views: list[int]
    wide: int
    """How many of them are wide."""
    captions: list[int]
    """Per wide view a row of the bank's captions, -1 where its photo has none."""
    other_captions: list[int]
    name_targets: Tensor
    """(wide, M) weights that sum to 1, or to 0 where the photo has no names."""
    wording: int
    """Which of the bank's wordings the names have."""


def sample_batch(
    photos: list[Photo],
    bank: TextBank,
    size: int,
    wide_share: float,
    rng: np.random.Generator,
    settings: PretrainSettings,
) -> Batch:
    """Wide views of photos that have words, the rest narrow ones of any photo."""
    worded = np.array([i for i, photo in enumerate(photos) if photo.captions or photo.names])
    count = round(size * wide_share)
    wide, narrow = rng.choice(worded, count, replace=False), rng.choice(len(photos), size - count)
    views = [2 * int(v) for v in rng.integers((settings.shards + 1) // 2, size=count)]
    views += [1 + 2 * int(v) for v in rng.integers(settings.shards // 2, size=size - count)]
    own = {row for i in wide for row in bank.caption_rows[i]}
    others = rng.choice(len(bank.captions), min(settings.negatives, len(bank.captions)), replace=False)
    targets = torch.zeros(count, len(bank.names))
    for row, i in enumerate(wide):
        for name, weight in bank.photo_names[i].items():
            targets[row, name] = weight
    return Batch(
        photos=[int(i) for i in (*wide, *narrow)],
        views=views,
        wide=count,
        captions=[int(rng.choice(bank.caption_rows[i])) if bank.caption_rows[i] else -1 for i in wide],
        other_captions=[int(row) for row in others if int(row) not in own],
        name_targets=targets,
        wording=int(rng.integers(len(bank.name_vectors))),
    )


def load_views(photos: list[Photo], settings: PretrainSettings) -> list[dict[str, Tensor]]:
    """Views of every photo, made where they do not exist yet."""
    folder = settings.work / f"views_{photos_digest(photos)}_{settings.seed}"
    paths = [folder / f"view_{number:02d}.safetensors" for number in range(settings.shards)]
    for number, path in enumerate(paths):
        if not path.exists():
            write_views(photos, path, wide=number % 2 == 0, seed=settings.seed * 1000 + number)
    return [load_file(path) for path in paths]
