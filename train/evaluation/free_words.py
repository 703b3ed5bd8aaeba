"""Free words on photos with hand-named regions: questions and figures (`train/free_words.py`)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.errors import ImageError, ProposalError, SettingsError
from ovseg_demo.evaluation.metrics import Estimate, bootstrap_draws, interval, percent_of
from ovseg_demo.naming.hidden_names import head_word
from ovseg_demo.proposals import Proposals, Steps
from ovseg_demo.result import Segmentation
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import fold
from train.core.options import DEFAULT_DATA
from train.data.named_regions import HELD_OUT_FOLD, NamedPhoto, read_named_regions
from train.data.sources import DataError
from train.evaluation.runner import EvaluatorSettings, arm_sources, evenly_spaced, make_segmenters

SENSIBLE = 0.75
"""An overlay is sensible if at least this share of the pixels that count is right."""

GOALS = {"sensible": 80.0, "pixels_right": 85.0, "absent_not_found": 92.0}


@dataclass(frozen=True)
class FreeWordsSettings:
    """Natural names of a photo and names of other photos: sensible overlays, right pixels, absent words."""

    data: Path = DEFAULT_DATA
    """Folder that holds named_regions and the photos it names."""
    model: str = Settings.model
    """Name of the model table, or a checkpoint."""
    arms: tuple[str, ...] = ()
    """Arms of the model, both, all, and further checkpoints as NAME=PATH; by default the model's best arm."""
    merge: Literal["default", "benchmark", "published-demo"] = "default"
    """How named masks become a label map."""
    present: int = 10
    """Most names that a photo is asked for of its own."""
    absent: int = 5
    """Names of other photos that it is asked for."""
    proposer: str = ""
    """Where the proposals come from; by default the stored ones of named_regions, which are mobile-sam's."""
    proposals_cache: Path | None = None
    """Folder that keeps the proposals of each photo between runs, where a proposer is given."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    photos: int = 0
    """Only so many photos, spread evenly over fold 0; 0 = all."""
    device: str = Settings.device
    """auto, cpu, cuda or cuda:<number>."""
    draws: int = 1000
    """Draws of photos for the intervals."""
    seed: int = 0
    """Of the names and of the draws of photos."""
    json: Path | None = None
    """Write the figures and every answer here as well."""

    def __post_init__(self) -> None:
        if self.present < 1 or self.absent < 0:
            raise SettingsError(
                f"--present {self.present} and --absent {self.absent} ask for no name that is there."
            )


def first_names(photo: NamedPhoto) -> list[str]:
    """The natural names of its regions, each once, those of large regions first."""
    return list(dict.fromkeys(region.names[0] for region in photo.regions if region.names))


def all_names(photo: NamedPhoto) -> set[str]:
    """Every right name of every region, and what they are parts of."""
    return {name for region in photo.regions for name in (*(region.names or ()), *region.part_of)}


def stored_proposals(photo: NamedPhoto) -> Proposals:
    """The regions of a photo as the program's proposer gave them, in their order.

    Raises:
        DataError: a run-length code does not fit the photo, or a region has no pixel.
    """
    masks = np.zeros((len(photo.regions), *photo.size), dtype=np.bool_)
    for mask, region in zip(masks, photo.regions, strict=True):
        mask[:] = region.mask()
    found = Proposals.of(masks, np.array([region.quality for region in photo.regions], dtype=np.float32))
    if len(found) != len(masks):
        raise DataError(f"{photo.name} has a named region without a pixel; restore the file.")
    return found


@dataclass(frozen=True)
class FreeQuestion:
    """What one photo is asked for."""

    present: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def asked(self) -> tuple[str, ...]:
        """All of them by alphabet, so that their position carries no information."""
        return tuple(sorted(self.present + self.absent))


def make_free_question(
    photo: NamedPhoto, others: Sequence[NamedPhoto], *, present: int, absent: int, seed: int
) -> FreeQuestion:
    """Draw the names of one photo; the photo and the seed decide them.

    Present are first names of its regions; absent are first names of regions of other photos, each of a
    photo drawn anew, none of which is right anywhere in this photo or ends in the same word as one that is
    ("wooden table" is not absent from a photo with a "table").
    """
    draw = random.Random(f"{seed} {photo.name}")
    own = first_names(photo)
    asked = sorted(draw.sample(own, present)) if len(own) > present else sorted(own)
    taken = {fold(name) for name in all_names(photo)}
    heads = {head_word(name) for name in all_names(photo)}
    strangers: list[str] = []
    pool = [other for other in others if other.name != photo.name and other.named()]
    for _ in range(50 * absent):
        if len(strangers) == absent or not pool:
            break
        name = draw.choice(first_names(draw.choice(pool)))
        if fold(name) not in taken and head_word(name) not in heads:
            strangers.append(name)
            taken.add(fold(name))
            heads.add(head_word(name))
    return FreeQuestion(tuple(asked), tuple(strangers))


def right_names(photo: NamedPhoto, masks: NDArray[np.bool_]) -> list[frozenset[str]]:
    """The right names inside each region: its own, what it is part of, and the names of that thing there.

    Args:
        photo: R regions.
        masks: (R, H, W) bool.

    Returns:
        R sets; empty where the region has no names.
    """
    areas = masks.sum(axis=(1, 2))
    found = []
    for k, region in enumerate(photo.regions):
        names = {*(region.names or ()), *(region.part_of if region.names else ())}
        if region.names and region.part_of:
            for j, whole in enumerate(photo.regions):
                if j != k and areas[j] > areas[k] and set(whole.names or ()) & set(region.part_of):
                    shared = np.count_nonzero(masks[k] & masks[j])
                    if shared > areas[k] / 2:
                        names |= set(whole.names or ())
        found.append(frozenset(names))
    return found


def smallest_named(photo: NamedPhoto, masks: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """(H, W) number of the smallest named region over each pixel, counted from 1; 0 = none."""
    smallest = np.zeros(photo.size, dtype=np.uint16)
    areas = masks.sum(axis=(1, 2))
    for k in np.argsort(-areas, kind="stable"):
        if photo.regions[k].names:
            smallest[masks[k]] = k + 1
    return smallest


@dataclass(frozen=True)
class Truth:
    """Which of the asked names are right where.

    Attributes:
        region_map: (H, W) uint16 from `smallest_named`.
        right: (R + 1, C + 1) bool, whether asked name c (from 1) is right in region r (from 1).
    """

    region_map: NDArray[np.uint16]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, photo: NamedPhoto, masks: NDArray[np.bool_], asked: Sequence[str]) -> Truth:
        """Of a photo, the masks of its regions and the names it is asked for."""
        right = np.zeros((len(masks) + 1, len(asked) + 1), dtype=np.bool_)
        for k, names in enumerate(right_names(photo, masks), start=1):
            right[k, 1:] = [name in names for name in asked]
        return cls(smallest_named(photo, masks), right)

    def count(self, label_map: NDArray[np.uint16]) -> list[int]:
        """Pixels that are right, pixels that count, pixels coloured where nothing is right, and such pixels.

        A pixel counts if at least one asked name is right there. Pixels outside every named region are in
        none of the four.
        """
        known = self.region_map > 0
        counts = np.asarray(self.right.any(axis=1))[self.region_map]
        right = self.right[self.region_map, label_map]
        bare = known & ~counts
        pixels = (right, counts, bare & (label_map > 0), bare)
        return [int(np.count_nonzero(one)) for one in pixels]


class StoredProposals:
    """Proposes the stored regions of the photo that was shown to it last."""

    name = "mobile-sam, stored"

    def __init__(self) -> None:
        self._proposals = Proposals.empty(1, 1)

    def show(self, proposals: Proposals) -> None:
        """Take the proposals of the next photo."""
        self._proposals = proposals

    def stream(self, image: NDArray[np.uint8]) -> Steps:
        """See Proposer.stream; the image must have the size of the masks that were shown."""
        yield 1.0
        if image.shape[:2] != self._proposals.masks.shape[1:]:
            raise ProposalError(
                f"The stored regions are {self._proposals.masks.shape[1:]}, the photo {image.shape[:2]}: "
                "named_regions and its photos do not belong together."
            )
        return self._proposals


COLUMNS = ("right", "counted", "strays", "bare", "present_found", "present", "absent_not_found", "absent")
"""Of the counts of one photo: pixels, then words."""


def count_photo(truth: Truth, question: FreeQuestion, result: Segmentation) -> list[int]:
    """The counts of one photo, in the order of COLUMNS."""
    found = {item.name for item in result.classes if item.found}
    present, absent = set(question.present), set(question.absent)
    return [
        *truth.count(result.label_map),
        len(present & found),
        len(present),
        len(absent - found),
        len(absent),
    ]


def free_figures(counts: NDArray[np.int64], draws: int, seed: int) -> dict[str, Estimate]:
    """Percent with 95 % intervals over photos.

    Args:
        counts: (N, 8) per photo, columns as COLUMNS.
        draws: how often photos are drawn.
        seed: of the draws.

    Returns:
        "sensible": photos of which at least three quarters of the counted pixels are right; "pixels_right":
        mean over photos of that share; "pixels_right_pooled": of all pixels; "present_found",
        "absent_not_found": of words; "strays": pixels that are coloured though nothing asked is right there.
    """
    times = bootstrap_draws(len(counts), draws, seed)
    columns = dict(zip(COLUMNS, counts.T.astype(float), strict=True))
    has = columns["counted"] > 0
    share = np.divide(columns["right"], columns["counted"], out=np.zeros(len(counts)), where=has)
    parts = {
        "sensible": ((has & (share >= SENSIBLE)).astype(float), has.astype(float)),
        "pixels_right": (share * has, has.astype(float)),
        "pixels_right_pooled": (columns["right"], columns["counted"]),
        "present_found": (columns["present_found"], columns["present"]),
        "absent_not_found": (columns["absent_not_found"], columns["absent"]),
        "strays": (columns["strays"], columns["bare"]),
    }
    return {
        name: Estimate(
            float(percent_of(part.sum(), whole.sum())), interval(percent_of(times @ part, times @ whole))
        )
        for name, (part, whole) in parts.items()
        if whole.any()
    }


@torch.inference_mode()
def evaluate_free_words(settings: FreeWordsSettings) -> dict[str, Any]:
    """Ask every photo of fold 0 under every arm: figures by arm, and what was asked and answered."""
    everything = read_named_regions(settings.data, (HELD_OUT_FOLD,))
    photos = [photo for photo in evenly_spaced(everything, settings.photos) if photo.named()]
    arms = arm_sources(settings.arms, settings.model)
    run = EvaluatorSettings(
        arms=tuple(arms),
        proposer=settings.proposer,
        proposals_cache=settings.proposals_cache,
        device=settings.device,
    )
    stored = None if settings.proposer else StoredProposals()
    segmenters = make_segmenters(run, stored)
    counts: dict[str, list[list[int]]] = {arm.name: [] for arm in arms}
    answers, skipped = [], []
    for photo in tqdm(photos, desc="fold 0", disable=None):
        question = make_free_question(
            photo, everything, present=settings.present, absent=settings.absent, seed=settings.seed
        )
        proposals = stored_proposals(photo)
        truth = Truth.of(photo, proposals.masks, question.asked)
        if stored is not None:
            stored.show(proposals)
        try:
            image = photo.read()
            results = {
                arm.name: _segment(segmenters[arm.model], image, question, arm.weights, settings)
                for arm in arms
            }
        except (ImageError, ProposalError) as error:
            skipped.append(f"{photo.name}: {error}")
            continue
        for name, result in results.items():
            counts[name].append(count_photo(truth, question, result))
        answers.append(_to_record(photo, question, results, counts))
    return {
        "arms": {
            name: free_figures(np.array(rows), settings.draws, settings.seed)
            for name, rows in counts.items()
            if rows
        },
        "skipped": skipped,
        "answers": answers,
    }


def _segment(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    question: FreeQuestion,
    weights: Any,
    settings: FreeWordsSettings,
) -> Segmentation:
    return segmenter(image, question.asked, weights, merge=settings.merge, templates=settings.templates)


def _to_record(
    photo: NamedPhoto,
    question: FreeQuestion,
    results: Mapping[str, Segmentation],
    counts: Mapping[str, list[list[int]]],
) -> dict[str, Any]:
    """The question and each arm's answer, in words."""
    return {
        "photo": photo.name,
        "present": list(question.present),
        "absent": list(question.absent),
        "arms": {
            name: {
                "found": [item.name for item in result.found],
                **dict(zip(COLUMNS, counts[name][-1], strict=True)),
            }
            for name, result in results.items()
        },
    }
