"""What a memory of three corrected photos changes on the others of their kind (`train/memory.py`)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.clip import load_clip
from ovseg_demo.evaluation.metrics import Estimate, bootstrap_draws, interval
from ovseg_demo.memory import MemorySettings, lacks_of, memory_evidence
from ovseg_demo.merging import Scores, merge
from ovseg_demo.merging.evidence import log_odds
from ovseg_demo.naming.classifier import Classifier, PhotoFeatures
from ovseg_demo.proposals import Proposals
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary
from train.core.options import DEFAULT_DATA
from train.data.named_regions import HELD_OUT_FOLD, NamedPhoto, read_named_regions
from train.evaluation.calibration_data import photo_features
from train.evaluation.free_words import Truth, first_names, right_names, smallest_named

KINDS: dict[str, tuple[str, ...]] = {
    "streets": ("road", "building", "tree", "sky", "person"),
    "rooms": ("wall", "floor", "window", "ceiling", "table"),
    "meals": ("table", "plate", "bowl", "food", "cup"),
    "mountains": ("sky", "mountain", "tree", "water", "rock"),
    "animals": ("grass", "dog", "tree", "sky", "person"),
    "people": ("person", "face", "shirt", "hair", "wall"),
    "shores": ("sea", "sand", "sky", "rock", "person"),
    "fields": ("grass", "person", "sky", "tree", "field"),
}
"""Five names that are typed for photos of a kind."""
CHOSEN_ON = ("rooms", "mountains", "animals", "shores")
"""Kinds on which the numbers of the formula were chosen; the others took no part in that."""
INVENTED = ("alpha", "beta", "gamma", "delta", "omega")
"""Words that say nothing about regions."""
STRIDE = 4
"""Of the pixels that are looked at."""
LEAST_CLASSES = 2
"""A photo is of a kind if it shows at least so many of its names."""


@dataclass(frozen=True)
class MemoryFiguresSettings:
    """Photos of a kind before and after three of them are remembered."""

    data: Path = DEFAULT_DATA
    """Folder that holds named_regions and the photos it names."""
    model: str = Settings.model
    """Name of the model table, or a checkpoint."""
    arms: tuple[str, ...] = ("adapted", "context")
    """Arms of the model."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Which kinds of photos."""
    photos: int = 3
    """How many photos are corrected and remembered."""
    draws: int = 6
    """How often they are drawn for each kind."""
    unrelated: int = 20
    """Photos without any of a kind's names, for each kind, that should stay as they are."""
    features_cache: Path | None = None
    """Folder that keeps features between runs."""
    seed: int = 0
    """Of the draws."""
    width: float = MemorySettings.width
    """See `MemorySettings`."""
    doubt: float = MemorySettings.doubt
    """See `MemorySettings`."""
    margin: float = MemorySettings.margin
    """See `MemorySettings`."""
    own_words: bool = False
    """Type invented words for the five names: words that no model knows."""
    json: Path | None = None
    """Write the figures here as well."""


@dataclass(frozen=True)
class Shown:
    """A photo with what one arm makes of it, at every STRIDE-th pixel.

    Attributes:
        photo: of fold 0.
        proposals: its stored regions; small ones may be left without a pixel.
        features: of the regions at full size.
        names: the right names inside each region.
        region_map: (h, w) the smallest named region, see `Truth`.
    """

    photo: NamedPhoto
    proposals: Proposals
    features: PhotoFeatures
    names: tuple[frozenset[str], ...]
    region_map: NDArray[np.uint16]


@dataclass(frozen=True)
class Asked:
    """A photo under one vocabulary.

    Attributes:
        shown: the photo.
        scores: without a memory.
        truth: which of the words are right where.
        before: (h, w) the label map without a memory.
    """

    shown: Shown
    scores: Scores
    truth: Truth
    before: NDArray[np.uint16]


@dataclass(frozen=True)
class Remembered:
    """Examples: (N, D) features and (N, C) lacks."""

    features: NDArray[np.float32]
    lacks: NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """One draw of remembered photos: intersection and union of each class, before and after."""

    kind: str
    iou_before: NDArray[np.float64]
    """(C,) in percent, NaN where the class is nowhere."""
    iou_after: NDArray[np.float64]
    changed: tuple[float, ...]
    """Share of each unrelated photo that changed, in percent."""
    examples: int


class MemoryBench:
    """One arm on the photos of fold 0.

    Args:
        classifier: the arm.
        photos: of fold 0.
        folder: keeps features; None = nowhere.
    """

    def __init__(self, classifier: Classifier, photos: Sequence[NamedPhoto], folder: Path | None) -> None:
        self.classifier = classifier
        self.photos = [photo for photo in photos if photo.named()]
        self._folder = folder
        self._shown: dict[str, Shown] = {}

    def show(self, photo: NamedPhoto) -> Shown:
        """A photo with its features, kept."""
        if photo.name not in self._shown:
            masks = np.stack([region.mask()[::STRIDE, ::STRIDE] for region in photo.regions])
            small = replace(photo, size=(masks.shape[1], masks.shape[2]))
            quality = np.array([region.quality for region in photo.regions], dtype=np.float32)
            proposals = Proposals(masks, quality, boxes_of(masks))
            features = photo_features(self.classifier, photo, None, self._folder)
            self._shown[photo.name] = Shown(
                photo, proposals, features, tuple(right_names(small, masks)), smallest_named(small, masks)
            )
        return self._shown[photo.name]

    def ask(self, photo: NamedPhoto, words: Sequence[str], typed: Sequence[str]) -> Asked:
        """Score a photo for a vocabulary, and merge without a memory.

        Args:
            photo: of fold 0.
            words: what is meant, the names that are right.
            typed: what is typed for them, in the same order.
        """
        shown = self.show(photo)
        scores = self.classifier.score(shown.features, Vocabulary.of(typed), "vild")
        right = np.zeros((len(shown.names) + 1, len(words) + 1), dtype=np.bool_)
        right[1:, 1:] = [[word in names for word in words] for names in shown.names]
        truth = Truth(shown.region_map, right)
        return Asked(shown, scores, truth, self.label_map(scores, shown.proposals, words))

    def label_map(self, scores: Scores, small: Proposals, words: Sequence[str]) -> NDArray[np.uint16]:
        """(h, w) by the default rule."""
        return merge("default", scores, small, tuple(words), self.classifier.merge_settings).label_map

    def odds(self, scores: Scores) -> NDArray[np.float32]:
        """(R, C) log-odds of the words for each region, against the hidden names."""
        return log_odds(scores.typed, scores.hidden, self.classifier.merge_settings)

    def remind(
        self, asked: Asked, words: Sequence[str], memory: Remembered, numbers: MemorySettings
    ) -> NDArray[np.uint16]:
        """(h, w) by the default rule with a memory, whose names come first among the words."""
        lacks = np.zeros((len(memory.features), len(words)), dtype=np.float32)
        lacks[:, : memory.lacks.shape[1]] = memory.lacks
        evidence = memory_evidence(asked.shown.features.regions, memory.features, lacks, numbers)
        scale = np.float32(self.classifier.merge_settings.logit_scale)
        scores = replace(asked.scores, typed=asked.scores.typed + evidence / scale)
        return self.label_map(scores, asked.shown.proposals, words)

    def remember(self, photos: Sequence[Asked], words: Sequence[str], numbers: MemorySettings) -> Remembered:
        """All regions of some photos that one of the words names, as a person corrects or accepts them."""
        rows, owners, odds = [], [], []
        for one in photos:
            believed = self.odds(one.scores)
            for k, region in enumerate(one.shown.photo.regions):
                own = [words.index(name) for name in region.names or () if name in words]
                if own:
                    rows.append(one.shown.features.regions[k])
                    # Of several right names a person leaves the one that is there already.
                    owners.append(max(own, key=lambda c: believed[k, c]))
                    odds.append(believed[k])
        return Remembered(np.stack(rows), lacks_of(np.stack(odds), np.array(owners), numbers))


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(K, 4) left, top, right, bottom of (K, h, w) masks; all 0 where a mask has no pixel."""
    boxes = np.zeros((len(masks), 4), dtype=np.int32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def overlaps(truth: Truth, labels: NDArray[np.uint16], classes: int) -> NDArray[np.int64]:
    """Intersection and union of each class, (2, C), over pixels whose names are known.

    A pixel with several right names counts as the one it was given if that is right, else as the first one.
    """
    known = truth.region_map > 0
    right = truth.right[truth.region_map[known]]  # (n, C + 1)
    given = labels[known].astype(np.int64)
    first = np.where(right[:, 1:].any(axis=1), right[:, 1:].argmax(axis=1) + 1, 0)
    is_right = np.take_along_axis(right, given[:, None], axis=1)[:, 0]
    true = np.where(is_right, given, first)
    hits = np.bincount(given[true == given], minlength=classes + 1)
    union = np.bincount(given, minlength=classes + 1) + np.bincount(true, minlength=classes + 1) - hits
    return np.stack([hits[1:], union[1:]])


def kind_tasks(
    bench: MemoryBench, kind: str, settings: MemoryFiguresSettings, numbers: MemorySettings
) -> Iterator[Task]:
    """All draws of one kind."""
    words = KINDS[kind]
    own, strangers = [], []
    for photo in bench.photos:
        names = {name for region in photo.named() for name in (*(region.names or ()), *region.part_of)}
        shared = len(names & set(words))
        if shared >= LEAST_CLASSES:
            own.append(photo)
        elif not shared:
            strangers.append(photo)
    draw = random.Random(f"{settings.seed} {kind}")
    typed = INVENTED if settings.own_words else words
    asked = {photo.name: bench.ask(photo, words, typed) for photo in own}
    unrelated = []
    for photo in draw.sample(strangers, min(settings.unrelated, len(strangers))):
        theirs = [name for name in first_names(photo)[:10] if name not in words]
        unrelated.append(((*words, *theirs), bench.ask(photo, (*words, *theirs), (*typed, *theirs))))
    for _ in range(settings.draws):
        chosen = draw.sample(own, settings.photos)
        memory = bench.remember([asked[photo.name] for photo in chosen], words, numbers)
        counts = np.zeros((2, 2, len(words)), dtype=np.int64)
        for photo in own:
            if photo not in chosen:
                one = asked[photo.name]
                after = bench.remind(one, words, memory, numbers)
                counts[0] += overlaps(one.truth, one.before, len(words))
                counts[1] += overlaps(one.truth, after, len(words))
        changed = [
            100 * float(np.mean(bench.remind(one, meant, memory, numbers) != one.before))
            for meant, one in unrelated
        ]
        with np.errstate(invalid="ignore"):
            before, after_ = (100 * c[0] / c[1] for c in counts)
        yield Task(kind, before, after_, tuple(changed), len(memory.features))


def measure_memory(settings: MemoryFiguresSettings) -> dict[str, list[Task]]:
    """All tasks of each arm."""
    photos = read_named_regions(settings.data, (HELD_OUT_FOLD,))
    numbers = MemorySettings(settings.width, settings.doubt, settings.margin)
    found: dict[str, list[Task]] = {}
    for arm in settings.arms:
        bench = MemoryBench(
            Classifier(load_clip(settings.model, weights=arm)), photos, settings.features_cache
        )
        found[arm] = [
            task
            for kind in tqdm(settings.kinds, desc=arm, disable=None)
            for task in kind_tasks(bench, kind, settings, numbers)
        ]
    return found


def mean_gain(tasks: Sequence[Task], draws: int = 1000, seed: int = 0) -> Estimate:
    """Mean gain in mIoU over tasks, in points, with its 95 % interval over tasks."""
    gains = np.array([np.nanmean(task.iou_after - task.iou_before) for task in tasks])
    times = bootstrap_draws(len(gains), draws, seed)
    return Estimate(float(gains.mean()), interval(times @ gains / times.sum(axis=1)))


def class_gains(tasks: Sequence[Task]) -> dict[tuple[str, str], float]:
    """Mean gain in IoU of each class of each kind, in points; a class that no draw shows is left out."""
    gains: dict[tuple[str, str], float] = {}
    for kind in dict.fromkeys(task.kind for task in tasks):
        rows = np.array([task.iou_after - task.iou_before for task in tasks if task.kind == kind])
        for name, column in zip(KINDS[kind], rows.T, strict=True):
            if not np.isnan(column).all():
                gains[kind, name] = float(np.nanmean(column))
    return gains


def scoring_cost(examples: int, *, width: int = 1152, classes: int = 10, seed: int = 0) -> float:
    """Milliseconds that so many examples cost for 100 regions, the median of 20 times.

    Args:
        examples: how many.
        width: of the features.
        classes: how many words are typed.
        seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    regions, rows = (
        rng.normal(size=(n, width)).astype(np.float32) / np.float32(width**0.5) for n in (100, examples)
    )
    lacks, seconds = rng.uniform(-1, 1, (examples, classes)).astype(np.float32), []
    for _ in range(20):
        started = time.perf_counter()
        memory_evidence(regions, rows, lacks)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
