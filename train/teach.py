"""Teach mask prompts with corrected photos: a file of about 100 KB, every CLIP weight untouched.

    python -m train.teach --from export.zip --out prompts.safetensors
    python -m ovseg_demo segment photo.jpg --vocabulary "dog, grass" --prompts prompts.safetensors --out out

`--from` is a zip or folder with `corrections.json` and `corrected_photo.jpg` (the export "corrections"), of
one photo or of many. Each correction is kept out once, by whole photos where there are four; what the prompts
of the others make of it is printed beside what was said before, and where that may be chance, or other places
of the photos change, nothing is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ovseg_demo.clip import load_clip
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.progress import map_steps, run_to_end
from ovseg_demo.settings import Settings
from ovseg_demo.teaching import Lessons, TaughtPrompts, TeachStep, read_lessons, teach
from train.core.options import run_command


@dataclass(frozen=True)
class TeachSettings:
    """Tune mask prompts on corrected regions, at least 20 of them."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """Zip or folder of corrected photos."""
    out: Path = Path("prompts.safetensors")
    """File that is written."""
    model: str = Settings.model
    """Name of the model table, or a folder that training wrote."""
    seed: int = 0
    """Draws which corrections are kept out."""


def teach_prompts(settings: TeachSettings) -> TaughtPrompts:
    """Read, tune, print the accuracy before and after, and write the file."""
    started = time.perf_counter()
    classifier = Classifier(load_clip(settings.model, weights="adapted"))
    lessons = Lessons.of(classifier, read_lessons(settings.source))
    print(f"{lessons.regions} corrected regions of {len(lessons.names)} names: {', '.join(lessons.names)}")
    last = ""

    def told(step: TeachStep) -> None:
        nonlocal last
        last = step.message

    taught = run_to_end(map_steps(teach(classifier, lessons, seed=settings.seed), told))
    taught.save(settings.out)
    size = settings.out.stat().st_size / 1000
    print(f"{last}.\n{settings.out}: {size:.0f} KB, {time.perf_counter() - started:.0f} s")
    return taught


if __name__ == "__main__":
    run_command(teach_prompts, TeachSettings, prog="train.teach")
