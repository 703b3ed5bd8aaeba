"""Choose the numbers of the default merge rule for each arm of a model, on photos nothing was trained on.

    python -m train.calibrate --features-cache runs/features --plot reliability.png

Photos are those of fold 0 of named_regions. Each is asked for names that it shows and names that it does not,
few and many (`calibration_data.MIXES`; LONG_MIXES too for arms that see the photo); those that are photos of
COCO also for all its 80 names. The steps are told in train/evaluation/calibration.py. What is printed for the
confidence is the expected calibration error on photos that took no part in fitting. The numbers go into
config.json beside the weights.

Features are computed once per arm and cached, so that choosing again takes minutes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.clip import load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.evaluation.metrics import Reliability
from ovseg_demo.models import ALL, chosen_arms
from ovseg_demo.naming.classifier import Classifier
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.data_sets import read_data_set
from train.data.named_regions import HELD_OUT_FOLD, read_named_regions
from train.evaluation.calibration import (
    TYPED,
    benchmark_pixels_right,
    fit,
    fit_photo_weight,
    held_out_reliability,
    pixel_figures,
)
from train.evaluation.calibration_data import LONG_MIXES, examples_of
from train.evaluation.reliability_chart import draw_reliability
from train.evaluation.runner import evenly_spaced
from train.exporting.weights import read_config


@dataclass(frozen=True)
class CalibrateSettings:
    """Choose the numbers of the default merge rule and write them beside the weights."""

    model: Path = Path("checkpoints/ovseg-mini")
    """Folder of an ovseg-mini; its config.json is written."""
    arms: tuple[str, ...] = (ALL,)
    """Arms to calibrate: their names, both or all."""
    data: Path = DEFAULT_DATA
    """Folder that holds named_regions, the photos it names, and coco_subset."""
    features_cache: Path | None = None
    """Folder that keeps the features of photos and names between runs."""
    photos: int = 0
    """Only so many photos, spread evenly; 0 = all."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    seed: int = 100
    """Of the names asked for; train.free_words asks for others."""
    plot: Path | None = None
    """Write the reliability of every arm's confidences as a PNG here."""


@torch.inference_mode()
def calibrate(settings: CalibrateSettings) -> None:
    """Fit each arm, print what was chosen and write it."""
    arms = chosen_arms(settings.arms, settings.model)
    everything = read_named_regions(settings.data, (HELD_OUT_FOLD,))
    photos = evenly_spaced(everything, settings.photos)
    long_lists = read_data_set("coco-train", settings.data)
    reliability: dict[str, tuple[Reliability, Reliability]] = {}
    for arm in arms:
        clip = load_clip(settings.model, weights=arm)
        fast = fast_dtype(torch.device("cpu"))
        classifier = Classifier(clip.compute_in(fast), TextCache(settings.features_cache))
        questions = partial(
            examples_of,
            classifier,
            photos,
            everything,
            long_lists,
            folder=settings.features_cache,
            templates=settings.templates,
            seed=settings.seed,
        )
        examples = questions(title=arm)
        chosen = fit(examples)
        if clip.sees_photo:
            longer = questions(mixes=LONG_MIXES, title=f"{arm}, long lists")
            before, chosen = chosen, fit_photo_weight(longer, chosen)
            told = " to ".join(f"{benchmark_pixels_right(longer, one):.1f}" for one in (before, chosen))
            print(f"{arm}: long lists by benchmark merging, pixels right {told} % with the photo's weight")
        words, regions = reliability[arm] = held_out_reliability(examples, chosen)
        own = pixel_figures([one for one in examples if one.kind == TYPED], chosen)
        told = ", ".join(f"{name.replace('_', ' ')} {value:.1f} %" for name, value in own.items())
        print(f"{arm}: {len(photos)} photos; {told}; calibration error on other photos:")
        print(f"  {words.error:.3f} of words, {regions.error:.3f} of regions; {chosen}")
        config = read_config(settings.model)
        config.setdefault("calibration", {})[arm] = asdict(chosen)
        write_text(settings.model / "config.json", json.dumps(config, indent=2) + "\n")
    if settings.plot:
        draw_reliability(reliability, settings.plot)


if __name__ == "__main__":
    run_command(calibrate, CalibrateSettings, prog="train.calibrate")
