"""Regions of fold 0 called by a right name, among all names of the data: what naming is chosen by.

    python -m train.fold0 --model ovseg-mini
    python -m train.fold0 --model runs/joint_mpt --weights adapted context

Fold 0 of the named regions is never trained on. It has things, stuff, parts and rare words; a region is right
if the closest of all names is any of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from ovseg_demo.models import ALL, chosen_arms
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.named_regions import HELD_OUT_FOLD, read_named_regions
from train.evaluation.named_accuracy import accuracy, all_names, count_right, gain
from train.evaluation.runner import evenly_spaced


@dataclass(frozen=True)
class FoldSettings:
    """Top-1 among all names on the named regions of fold 0, with intervals over photos."""

    model: str = "ovseg-mini"
    """Name of the model table, a checkpoint or the folder of a run."""
    weights: tuple[str, ...] = (ALL,)
    """Which arms: their names, both or all."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    photos: int = 0
    """Only so many photos, spread evenly; 0 = all."""
    draws: int = 1000
    """Draws of photos for the intervals."""
    seed: int = 0
    """Of these draws."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    json: Path | None = None
    """Write the figures here as well."""

    def __post_init__(self) -> None:
        if self.photos < 0 or self.draws < 1:
            raise SettingsError(f"--photos {self.photos} or --draws {self.draws} is too small.")


def fold0(settings: FoldSettings) -> None:
    """Print the figures of every arm and write them as JSON."""
    everything = read_named_regions(settings.data)
    names = all_names(everything)
    held_out = [photo for photo in everything if photo.fold == HELD_OUT_FOLD]
    photos = evenly_spaced(held_out, settings.photos) if settings.photos else held_out
    arms = chosen_arms(settings.weights, settings.model)
    counts = {}
    for arm in arms:
        clip = load_clip(settings.model, weights=arm).compute_in(fast_dtype(torch.device("cpu")))
        counts[arm] = count_right(clip, photos, names, settings.templates)
    regions = int(counts[arms[0]][:, 1].sum())
    print(f"{regions:,} regions of {len(photos):,} photos among {len(names):,} names, top-1 in percent:")
    figures = {}
    for arm in arms:
        own = accuracy(counts[arm], settings.draws, settings.seed)
        more = gain(counts[arm], counts[arms[0]], settings.draws, settings.seed)
        print(f"{arm:10} {own}" + (f"   against {arms[0]} {more}" if arm != arms[0] else ""))
        figures[arm] = {"top1": own.value, "interval": own.interval, "gain": more.value}
    if settings.json:
        about = {"model": settings.model, "regions": regions, "photos": len(photos), "names": len(names)}
        write_text(settings.json, json.dumps({**about, "arms": figures}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(fold0, FoldSettings, prog="train.fold0")
