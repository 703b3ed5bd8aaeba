"""Evaluate words that are in a photo and words that are not (`train/absent_words.py`)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from ovseg_demo.errors import ImageError, ProposalError, SettingsError
from ovseg_demo.evaluation.metrics import Counts, bootstrap_draws, interval, percent_of
from ovseg_demo.models import default_arm
from ovseg_demo.settings import Settings
from train.core.options import DEFAULT_DATA
from train.data.truth import TruthPhoto, TruthSet
from train.evaluation.runner import EvaluatorSettings, arm_sources, make_segmenters

GOALS = {"absent_not_found": 92.0, "present_found": 88.0}
LONG_LIST_GOALS = {"found_precision": 70.0, "present_found": 60.0}
"""Where all names of the data set are typed."""


@dataclass(frozen=True)
class AbsentWordsSettings:
    """Present words found and absent words not found, with up to five of each a photo."""

    data_set: str = "coco-val"
    """Data set with instances whose names are complete for every photo."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    model: str = Settings.model
    """Name of the model table, or a checkpoint."""
    arms: tuple[str, ...] = ()
    """Arms of the model, both, all, and further checkpoints as NAME=PATH; by default the model's best arm."""
    present: int = 5
    """Largest number of names a photo is asked for that it shows."""
    absent: int = 5
    """Names a photo is asked for that it does not show."""
    least_area: float = 0.01
    """Share of the photo that an instance must cover for its name to count as present."""
    all_names: bool = False
    """Type every name of the data set for each photo instead: how much of a long list is found, and right."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    proposer: str = Settings.proposer
    """Where the proposals come from."""
    proposals_cache: Path | None = None
    """Folder that keeps the proposals of each photo between runs."""
    photos: int = 0
    """Only so many photos, spread evenly over the set; 0 = all."""
    device: str = Settings.device
    """auto, cpu, cuda or cuda:<number>."""
    draws: int = 1000
    """Draws of photos for the intervals."""
    seed: int = 0
    """Of the names and of the draws of photos."""
    json: Path | None = None
    """Write the figures and every answer here as well."""

    def __post_init__(self) -> None:
        if self.present < 0 or self.absent < 0 or self.present + self.absent == 0:
            raise SettingsError(f"--present {self.present} and --absent {self.absent} ask for no names.")


@dataclass(frozen=True)
class Question:
    """What one photo is asked for: indices of classes."""

    present: tuple[int, ...]
    absent: tuple[int, ...]

    @property
    def asked(self) -> tuple[int, ...]:
        """All of them in the order of the class list, so that their position carries no information."""
        return tuple(sorted(self.present + self.absent))

    @classmethod
    def everything(cls, photo: TruthPhoto, classes: int, least_area: float) -> Question:
        """All names; those that are there only as small instances or as a crowd are in neither list."""
        large, shown = _shown(photo, least_area)
        return cls(tuple(sorted(large)), tuple(index for index in range(classes) if index not in shown))

    def count(self, found: set[int]) -> list[int]:
        """Present names found and asked, absent names not found and asked."""
        present, absent = set(self.present), set(self.absent)
        return [len(present & found), len(present), len(absent - found), len(absent)]

    def to_record(self, found: Mapping[str, set[int]], classes: Sequence[str]) -> dict[str, Any]:
        """What was asked and what each arm found, in words."""
        return {
            "present": [classes[index] for index in self.present],
            "absent": [classes[index] for index in self.absent],
            "found": {arm: [classes[index] for index in sorted(own)] for arm, own in found.items()},
        }


def make_question(photo: TruthPhoto, classes: int, settings: AbsentWordsSettings) -> Question:
    """Draw the names for one photo; the photo and the seed decide them."""
    large, shown = _shown(photo, settings.least_area)
    draw = random.Random(f"{settings.seed} {photo.path.name}")
    absent = [index for index in range(classes) if index not in shown]
    return Question(
        present=tuple(draw.sample(sorted(large), min(settings.present, len(large)))),
        absent=tuple(draw.sample(absent, min(settings.absent, len(absent)))),
    )


def _shown(photo: TruthPhoto, least_area: float) -> tuple[set[int], set[int]]:
    """Classes with a large instance, and all that the photo shows or may show."""
    segments = photo.read_segments()
    large = {s.class_index for s in segments if s.mask.mean() > least_area}
    return large, {s.class_index for s in segments} | photo.uncertain


def figures(counts: Counts, draws: int, seed: int) -> dict[str, Any]:
    """Percent of present names found, absent ones not found, found ones present; 95 % intervals over photos.

    Args:
        counts: (N, 4) per photo: present names found and asked, absent names not found and asked.
        draws: how often photos are drawn.
        seed: of the draws.
    """
    times = bootstrap_draws(len(counts), draws, seed)
    found: dict[str, Any] = {"intervals": {}}
    for name, column in (("present_found", 0), ("absent_not_found", 2)):
        right, asked = counts[:, column].astype(float), counts[:, column + 1].astype(float)
        if asked.any():
            found[name] = round(100 * right.sum() / asked.sum(), 3)
            found[f"{name}_of"] = int(asked.sum())
            drawn = percent_of(times @ right, times @ asked)
            found["intervals"][name] = [round(value, 3) for value in interval(drawn)]
    right = counts[:, 0].astype(float)
    said = right + counts[:, 3] - counts[:, 2]
    if said.any():
        found["found_precision"], found["found_precision_of"] = (
            round(100 * right.sum() / said.sum(), 3),
            int(said.sum()),
        )
        drawn = percent_of(times @ right, times @ said)
        found["intervals"]["found_precision"] = [round(value, 3) for value in interval(drawn)]
    return found


@torch.inference_mode()
def evaluate_questions(
    truth: TruthSet, photos: Sequence[TruthPhoto], settings: AbsentWordsSettings
) -> dict[str, Any]:
    """Ask every photo under every arm; figures by arm, and what was asked and answered."""
    arms = arm_sources(settings.arms or (default_arm(settings.model),), settings.model)
    how = EvaluatorSettings(
        arms=tuple(arms),
        proposer=settings.proposer,
        proposals_cache=settings.proposals_cache,
        device=settings.device,
    )
    segmenters = make_segmenters(how)
    counts: dict[str, list[list[int]]] = {arm.name: [] for arm in arms}
    answers: list[dict[str, Any]] = []
    skipped: list[str] = []
    for photo in tqdm(photos, desc=truth.name, disable=None):
        count = len(truth.classes)
        if settings.all_names:
            question, asked = Question.everything(photo, count, settings.least_area), tuple(range(count))
        else:
            question = make_question(photo, count, settings)
            asked = question.asked
        if not asked:
            continue
        names = [truth.classes[index] for index in asked]
        found: dict[str, set[int]] = {}
        try:
            image = photo.read()
            for arm in arms:
                segmenter = segmenters[arm.model]
                result = segmenter(image, names, arm.weights, merge="default", templates=settings.templates)
                told = zip(asked, result.classes, strict=True)
                found[arm.name] = {index for index, item in told if item.found}
        except (ImageError, ProposalError) as error:
            skipped.append(f"{photo.path.name}: {error}")
            continue
        for name, own in found.items():
            counts[name].append(question.count(own))
        answers.append({"photo": photo.path.name, **question.to_record(found, truth.classes)})
    own_figures = {name: np.array(rows) for name, rows in counts.items() if rows}
    return {
        "arms": {name: figures(rows, settings.draws, settings.seed) for name, rows in own_figures.items()},
        "skipped": skipped,
        "answers": answers,
    }
