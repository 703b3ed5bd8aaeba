"""Choose the numbers of the default merge rule for a model, on photos that may be trained on.

    python -m train.calibrate --model checkpoints/ovseg-mini --proposals-cache runs/proposals

1. Presence. Each photo of COCO train2017 is asked for names it shows and names it does not, as in
   train/absent_words.py. A logistic regression on two numbers per name, the log-odds of its best region and
   of the whole photo against the hidden names, says whether it is there; its bias is set where both goals
   (85 % of present names found, and OPTIMISM more, 80 % of absent ones not) are passed by the same margin.
2. Claims. Among a few values the one with the best mIoU over the names that are there, pixels without an
   instance counting as background; the mean of the arms decides, so that what differs between them on the
   page is what CLIP says and not the rule.

The numbers go into config.json beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.classify import Classifier
from ovseg_demo.clip import load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.merging import MergeSettings, Scores, log_odds, merge_default
from ovseg_demo.models import ALL, chosen_arms
from ovseg_demo.proposals import Proposals, load_proposer, propose
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.data_sets import read_data_set
from train.data.sources import DataError
from train.data.truth import TruthPhoto, TruthSet
from train.evaluation.absent_words import GOALS, AbsentWordsSettings, Question, make_question
from train.evaluation.proposers import CachedProposer
from train.evaluation.runner import evenly_spaced
from train.exporting.weights import read_config
from train.true_pairs import TRAINABLE

CLAIM_BIASES = (0.5, 1.5, 2.5)
SPECIFICITIES = (0.15, 0.35)
# Higher ones let a strong word swallow the stuff around it, which this calibration set does not hold.
PRESENCE_WEIGHTS = (0.0, 0.25)


OPTIMISM = 5.0
"""Points of present names that are found on these photos and would not be on new ones: the tower has seen the
photos, some with their captions, if never with their masks. Set after one look at COCO val2017, where without
it 78.9 % of present and 87.9 % of absent names were right."""


@dataclass(frozen=True)
class CalibrateSettings:
    """Choose the numbers of the default merge rule and write them beside the weights."""

    model: Path = Path("checkpoints/ovseg-mini")
    """Folder of an ovseg-mini; its config.json is written."""
    arms: tuple[str, ...] = (ALL,)
    """Arms to calibrate: their names, both or all."""
    data_set: str = "coco-train"
    """Set with instances that may be tuned on; of the same one true_pairs --hold-out leaves photos out."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    proposals_cache: Path | None = None
    """Folder that keeps the proposals of each photo between runs."""
    photos: int = 0
    """Only so many photos, spread evenly; 0 = all."""
    seed: int = 0
    """Of the names asked for."""


@dataclass(frozen=True)
class Example:
    """One photo under one arm, scored for the names it is asked for."""

    question: Question
    scores: Scores
    proposals: Proposals
    labels: NDArray[np.uint8]
    """(h, w) at the working size: 0 = none of the asked names, i = the i-th of `question.asked`."""


def examples(truth: TruthSet, arm: str, settings: CalibrateSettings) -> Iterator[Example]:
    """Score every photo for its question."""
    clip = load_clip(settings.model, weights=arm)
    classifier = Classifier(clip.compute_in(fast_dtype(torch.device("cpu"))))
    proposer = CachedProposer(load_proposer(Settings.proposer), settings.proposals_cache)
    asking = AbsentWordsSettings(seed=settings.seed)
    for photo in tqdm(evenly_spaced(truth.photos, settings.photos), desc=arm, disable=None):
        question = make_question(photo, len(truth.classes), asking)
        if not question.present:
            continue
        image = resize_to_side(photo.read(), Settings.max_side_px)
        proposals = propose(proposer, image).best(Settings.max_regions)
        if not len(proposals):
            continue
        vocabulary = Vocabulary.of([truth.classes[i] for i in question.asked])
        scores = classifier.score(classifier.embed(image, proposals), vocabulary, "vild")
        yield Example(question, scores, proposals, _labels(photo, question, image.shape[:2]))


def _labels(photo: TruthPhoto, question: Question, size: tuple[int, ...]) -> NDArray[np.uint8]:
    places = np.zeros(256, dtype=np.uint8)
    for place, index in enumerate(question.asked, start=1):
        places[index] = place
    labels = places[photo.read_labels()]
    return np.asarray(cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT))


def fit_presence(asked: list[Example], start: MergeSettings) -> MergeSettings:
    """Weights and bias of the evidence for a word (step 1)."""
    best = [log_odds(e.scores.typed, e.scores.hidden).max(axis=0) for e in asked]
    photo = [log_odds(e.scores.photo_typed, e.scores.photo_hidden) for e in asked]
    there = np.concatenate([[i in e.question.present for i in e.question.asked] for e in asked])
    facts = np.stack([np.concatenate(best), np.concatenate(photo), np.ones(len(there))], axis=1)
    weights = logistic_regression(facts, there.astype(float))
    evidence = facts @ weights
    goals = (GOALS["present_found"] + OPTIMISM) / 100, GOALS["absent_not_found"] / 100

    def margin(threshold: float) -> float:
        found = evidence > threshold
        return float(min(found[there].mean() - goals[0], (~found[~there]).mean() - goals[1]))

    threshold = max(np.quantile(evidence, np.linspace(0.02, 0.98, 193)), key=margin)
    return replace(
        start,
        found_region_weight=round(float(weights[0]), 4),
        found_photo_weight=round(float(weights[1]), 4),
        found_bias=round(float(weights[2] - threshold), 4),
    )


def logistic_regression(facts: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a logistic regression, a small ridge on each, by Newton's method.

    Args:
        facts: (n, k), a column of ones among them for a bias.
        truth: (n,) of 0 and 1.
    """
    weights = np.zeros(facts.shape[1])
    ridge = 1e-2 * np.eye(facts.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(facts @ weights, -60, 60)))
        slope = facts.T @ (truth - chance) - ridge @ weights
        curve = (facts * (chance * (1 - chance))[:, None]).T @ facts + ridge
        weights = weights + np.linalg.solve(curve, slope)
    return weights


def fit_claims(arms: list[tuple[list[Example], MergeSettings]]) -> dict[str, float]:
    """The claim bias, specificity and presence weight of the best mIoU, mean over the arms (step 2)."""
    options: list[dict[str, float]] = [
        {"claim_bias": claim, "specificity": specificity, "presence_weight": presence}
        for claim in CLAIM_BIASES
        for specificity in SPECIFICITIES
        for presence in PRESENCE_WEIGHTS
    ]

    def quality(option: dict[str, float]) -> float:
        return sum(mean_iou(asked, replace(start, **option)) for asked, start in arms)

    return max(options, key=quality)


def mean_iou(asked: list[Example], settings: MergeSettings) -> float:
    """mIoU over all names asked for: pixels of all photos together, per class."""
    shared: dict[int, int] = {}
    covered: dict[int, int] = {}
    for example in asked:
        labels = merge_default(example.scores, example.proposals, settings).label_map
        for place, index in enumerate(example.question.asked, start=1):
            mine, true = labels == place, example.labels == place
            shared[index] = shared.get(index, 0) + int((mine & true).sum())
            covered[index] = covered.get(index, 0) + int((mine | true).sum())
    return float(np.mean([shared[i] / covered[i] for i in shared if covered[i]]))


@torch.inference_mode()
def calibrate(settings: CalibrateSettings) -> None:
    """Fit each arm, print what was chosen and write it."""
    if settings.data_set not in TRAINABLE:
        raise DataError(
            f"{settings.data_set!r} is for evaluation, not to be tuned on: choose {' or '.join(TRAINABLE)}."
        )
    truth = read_data_set(settings.data_set, settings.data)
    config = read_config(settings.model)
    asked_of = {
        arm: list(examples(truth, arm, settings)) for arm in chosen_arms(settings.arms, settings.model)
    }
    presence = {arm: fit_presence(asked, MergeSettings()) for arm, asked in asked_of.items()}
    claims = fit_claims([(asked, presence[arm]) for arm, asked in asked_of.items()])
    for arm, asked in asked_of.items():
        chosen = replace(presence[arm], **claims)
        print(f"{arm}: {len(asked)} photos, mIoU {100 * mean_iou(asked, chosen):.1f}, {chosen}")
        config.setdefault("calibration", {})[arm] = asdict(chosen)
    write_text(settings.model / "config.json", json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    run_command(calibrate, CalibrateSettings, prog="train.calibrate")
