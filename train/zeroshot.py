"""How well a model names what it sees: true regions, masked and unmasked, and captions.

    python -m train.zeroshot --model ovseg-mini

Every figure is on photos that were never trained on. Masked = the region by its true mask, as in the demo;
unmasked = the rectangle around it as it is, background included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.models import ALL, chosen_arms
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.sources import flickr8k
from train.data.true_regions import true_regions
from train.data.truth import TRUTH_SETS, TruthSet, read_one_of


@dataclass(frozen=True)
class ZeroshotSettings:
    """Top-1 on true regions, masked and unmasked, and caption retrieval."""

    model: str = "ovseg-mini"
    """Name of the model table or a checkpoint."""
    weights: tuple[str, ...] = (ALL,)
    """Which arms: their names, both or all."""
    sets: tuple[str, ...] = ("msrc21", "coco-val")
    """Data sets with true masks."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    retrieval: bool = True
    """Also Flickr8k test: photos to captions."""
    photos: int = 0
    """Only the first so many photos of each set; 0 = all."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    json: Path | None = None
    """Write the figures here as well."""


def region_accuracy(
    model: MaskAdaptedCLIP, truth: TruthSet, settings: ZeroshotSettings, *, masked: bool
) -> dict[str, float]:
    """Top-1 and the mean of the classes' top-1, percent, and the number of regions."""
    names = model.encode_text(truth.classes, settings.templates)
    hits, seen = np.zeros(len(truth.classes)), np.zeros(len(truth.classes))
    for batch in true_regions(truth, masked=masked, photos=settings.photos):
        features = model.encode_photo_regions(batch.image, batch.masks, use_prompts=masked)
        logits = model.region_logits(features.numpy(), names.numpy(), truth.classes)
        guess = torch.from_numpy(logits.argmax(1))
        np.add.at(seen, batch.classes.numpy(), 1)
        np.add.at(hits, batch.classes[guess == batch.classes].numpy(), 1)
    there = seen > 0
    return {
        "top1": 100 * hits.sum() / seen.sum(),
        "mean_per_class": 100 * float((hits[there] / seen[there]).mean()),
        "regions": int(seen.sum()),
    }


def caption_retrieval(model: MaskAdaptedCLIP, settings: ZeroshotSettings) -> dict[str, float]:
    """Flickr8k test, percent: photos whose best caption is one of their own five, and the reverse."""
    photos = flickr8k(settings.data, ("test",))[: settings.photos or None]
    features = []
    for photo in tqdm(photos, desc="flickr8k test"):
        image = photo.read()
        whole = np.ones((1, *image.shape[:2]), dtype=bool)
        features.append(model.encode_photo_regions(image, whole, use_prompts=False))
    sentences = [caption for photo in photos for caption in photo.captions]
    owner = torch.tensor([i for i, photo in enumerate(photos) for _ in photo.captions])
    scores = torch.cat(features) @ model.encode_sentences(sentences).T
    right = owner[scores.argmax(1)] == torch.arange(len(photos))
    return {
        "image_to_text_r1": 100 * float(right.float().mean()),
        "text_to_image_r1": 100 * float((scores.argmax(0) == owner).float().mean()),
        "photos": len(photos),
    }


@torch.inference_mode()
def zeroshot(settings: ZeroshotSettings) -> None:
    """Print the table and write it as JSON."""
    arms = chosen_arms(settings.weights, settings.model)
    truths = {name: read_one_of(TRUTH_SETS, name, settings.data) for name in settings.sets}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for arm in arms:
        model = load_clip(settings.model, weights=arm).compute_in(fast_dtype(torch.device("cpu")))
        rows = figures[arm] = {}
        for name, truth in truths.items():
            for masked in (True, False):
                key = f"{name} {'masked' if masked else 'unmasked'}"
                rows[key] = region_accuracy(model, truth, settings, masked=masked)
        if settings.retrieval:
            rows["flickr8k test"] = caption_retrieval(model, settings)
    for title, rows in figures.items():
        for key, row in rows.items():
            print(f"{title:8} {key:22} " + "  ".join(f"{name} {value:.1f}" for name, value in row.items()))
    if settings.json:
        write_text(settings.json, json.dumps({"model": settings.model, "arms": figures}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(zeroshot, ZeroshotSettings, prog="train.zeroshot")
