"""Run the Segmenter on photos with truth: every arm on the same proposals, counts per photo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.clip.text import Templates
from ovseg_demo.devices import choose_device
from ovseg_demo.errors import ImageError, ProposalError, SettingsError, quoted
from ovseg_demo.evaluation.metrics import Counts, PhotoCounts, Tally, confusion_matrix
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.models import ALL, ARMS, BOTH, chosen_arms, default_arm, split_arm
from ovseg_demo.proposals import Proposer, find_proposer
from ovseg_demo.result import Arm, Segmentation
from ovseg_demo.segmenter import MergeRule, Segmenter
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary
from train.data.folders import MAX_NAME_LENGTH, NOTHING
from train.data.sources import DataError
from train.data.truth import Labels, TruthPhoto, TruthSet
from train.evaluation.proposers import CachedProposer, GroundTruthProposer

T = TypeVar("T")
MaskSource = Literal["proposals", "truth"]
_ARMS = ", ".join([*ARMS, BOTH, ALL])

LEAST_SHARE = 0.5
"""A class must fill this share of a proposal to be its true name."""

LARGEST_SIDE = 8192
"""True masks are named at the photo's own size, up to this longer side."""


@dataclass(frozen=True)
class ArmSource:
    """One arm to be measured."""

    name: str
    model: str
    weights: Arm


def arm_sources(arms: Sequence[str], model: str) -> list[ArmSource]:
    """Read what --arms says.

    Raises:
        SettingsError: there is none, an arm is neither known nor NAME=PATH, or comes twice.
    """
    found: dict[str, ArmSource] = {}
    for text in arms:
        name, _, path = text.partition("=")
        if name in found:
            raise SettingsError(f"--arms names {quoted(name)} twice.")
        if name and path:
            found[name] = ArmSource(name, path, default_arm(path))
        elif split_arm(text, model)[0] in (*ARMS, BOTH, ALL):
            for arm in chosen_arms([text], model):
                weights, of_model = split_arm(arm, model)
                found[arm] = ArmSource(arm, of_model, weights)
        else:
            raise SettingsError(f"--arms has {quoted(text)}: give {_ARMS}, one of them @MODEL, or NAME=PATH.")
    if not found:
        raise SettingsError(f"--arms is empty: give {_ARMS} or NAME=PATH.")
    return list(found.values())


def class_vocabulary(truth: TruthSet, *, synonyms: bool = False) -> Vocabulary:
    """The names of a data set, in its order.

    Raises:
        DataError: two classes share a name.
    """
    words = truth.synonyms if synonyms and truth.synonyms else [(name,) for name in truth.classes]
    lines = [" | ".join(own) for own in words]
    vocabulary = Vocabulary.of(lines, max_names=NOTHING, max_name_length=MAX_NAME_LENGTH)
    if len(vocabulary) != len(lines):
        raise DataError(f"{truth.name} has {len(lines)} classes but only {len(vocabulary)} different names.")
    return vocabulary


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly over the whole; all of them for 0."""
    if not 0 < count < len(items):
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]


@dataclass(frozen=True)
class EvaluatorSettings:
    """How photos go through the Segmenter."""

    arms: tuple[ArmSource, ...]
    masks: MaskSource = "proposals"
    merge: MergeRule = "benchmark"
    templates: Templates = "vild"
    proposer: str = ""
    """By default the one that `model` was published with, or the settings'."""
    model: str = Settings.model
    proposals_cache: Path | None = None
    ensemble: float = 0.0
    mask_threshold: float = Settings.mask_threshold
    device: str = "cpu"
    max_side_px: int = Settings.max_side_px
    max_regions: int = Settings.max_regions
    least_side_px: int = 0
    """Regions whose box has a shorter side are not asked for."""


def make_segmenters(settings: EvaluatorSettings, proposer: Proposer | None = None) -> dict[str, Segmenter]:
    """One segmenter per model, all with the same proposer, which computes each photo once."""
    device = choose_device(settings.device)
    true_masks = settings.masks == "truth"
    limits = Settings(
        max_names=NOTHING,
        max_name_length=MAX_NAME_LENGTH,
        max_side_px=LARGEST_SIDE if true_masks else settings.max_side_px,
        max_regions=NOTHING if true_masks else settings.max_regions,
        ensemble=settings.ensemble,
        mask_threshold=settings.mask_threshold,
    )
    if proposer is None:
        found = find_proposer(settings.model, settings.proposer, device=device, settings=limits)
        proposer = CachedProposer(found, settings.proposals_cache)
    models = dict.fromkeys(arm.model for arm in settings.arms)
    return {model: Segmenter(model, proposer, device=device, settings=limits) for model in models}


@dataclass
class EvaluationCounts:
    """The counts of an evaluation, by arm."""

    counts: dict[str, list[PhotoCounts]] = field(default_factory=dict)
    seconds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Photos that were left out and why."""

    def add(self, arm: str, counts: PhotoCounts, result: Segmentation) -> None:
        """Count one photo for an arm."""
        self.counts.setdefault(arm, []).append(counts)
        self.seconds.setdefault(arm, []).append(dict(result.timings))
        self.sha256[arm] = result.models["clip"]["sha256"]

    def skip(self, photo: TruthPhoto, error: Exception) -> None:
        """Leave a photo out, in the list and on stderr."""
        self.skipped.append(f"{photo.path.name}: {error}")
        print(f"skipped {self.skipped[-1]}", file=sys.stderr)

    def tallies(self) -> dict[str, Tally]:
        """The counts of each arm, stacked."""
        return {arm: Tally(counts) for arm, counts in self.counts.items()}


class Evaluator:
    """Runs the Segmenter on the photos of a data set.

    Args:
        truth: the data set.
        vocabulary: its names, in its order.
        settings: how.
        proposer: used instead of the one that the settings name.
    """

    def __init__(
        self,
        truth: TruthSet,
        vocabulary: Vocabulary,
        settings: EvaluatorSettings,
        proposer: Proposer | None = None,
    ) -> None:
        self.truth = truth
        self.vocabulary = vocabulary
        self.settings = settings
        self.true_masks = GroundTruthProposer() if settings.masks == "truth" else None
        self.segmenters = make_segmenters(settings, self.true_masks or proposer)

    @torch.inference_mode()
    def run(self, photos: Sequence[TruthPhoto]) -> EvaluationCounts:
        """Segment every photo under every arm; an unusable photo is skipped under all of them.

        Raises:
            DataError: no photo could be used, or a label map holds what it must not.
        """
        counted = EvaluationCounts()
        for photo in tqdm(photos, desc=self.truth.name, disable=None):
            try:
                self._count(photo, counted)
            except (ImageError, ProposalError) as error:
                counted.skip(photo, error)
        if not counted.counts:
            why = counted.skipped[0] if counted.skipped else "it has none."
            raise DataError(f"No photo of {self.truth.name} could be used: {why}")
        return counted

    def _count(self, photo: TruthPhoto, counted: EvaluationCounts) -> None:
        image, labels = photo.read(), photo.read_labels()
        if labels.shape != image.shape[:2]:
            raise ImageError(f"The photo is {image.shape[:2]} and its truth {labels.shape}.")
        asked: Sequence[int] | None = None
        if self.true_masks:
            working = resize_to_side(image, LARGEST_SIDE)
            asked = self.true_masks.set_truth(photo.read_segments(), (working.shape[0], working.shape[1]))
        # All arms before anything is counted.
        results = {arm.name: self.segment(arm, image) for arm in self.settings.arms}
        classes = len(self.vocabulary)
        if asked is None:
            asked = self.classes_of_proposals(next(iter(results.values())), labels)
        for arm, result in results.items():
            confusion = confusion_matrix(labels, result.label_map, classes, self.truth.ignore)
            found = np.array([item.found for item in result.classes])
            counts = PhotoCounts.of(confusion, found, photo.uncertain, *self._named_regions(asked, result))
            counted.add(arm, counts, result)

    def segment(self, arm: ArmSource, image: NDArray[np.uint8]) -> Segmentation:
        """The result of one arm for a photo, (H, W, 3) uint8 RGB."""
        segmenter, settings = self.segmenters[arm.model], self.settings
        return segmenter(
            image, self.vocabulary, arm.weights, merge=settings.merge, templates=settings.templates
        )

    def classes_of_proposals(self, result: Segmentation, labels: Labels) -> list[int]:
        """The true class of each proposal of a result, -1 for one that no class fills by half."""
        assert result.masks is not None
        height, width = result.masks.shape[1:]
        small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        found = []
        for mask in result.masks:
            inside = small[mask]
            counts = np.bincount(inside[inside != self.truth.ignore], minlength=1)
            best = int(counts.argmax())
            found.append(best if inside.size and counts[best] >= LEAST_SHARE * inside.size else -1)
        return found

    def _named_regions(self, asked: Sequence[int], result: Segmentation) -> tuple[Counts, Counts]:
        """(C,) regions that are large enough, and those of them whose best name is right."""
        regions, named = (np.zeros(len(self.vocabulary), dtype=np.int64) for _ in range(2))
        for index, region in zip(asked, result.regions, strict=True):
            left, top, right, bottom = region.box
            if index >= 0 and min(right - left, bottom - top) >= self.settings.least_side_px:
                regions[index] += 1
                named[index] += region.top[0][0] == self.vocabulary.names[index]
        return regions, named
