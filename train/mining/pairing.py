"""Third step: each noun of a photo's captions goes to the region that CLIP matches best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.mining.features import Features
from train.nouns import caption_nouns

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class PairRules:
    """How regions and nouns find each other."""

    confidence: Literal["bank", "regions", "both"] = "bank"
    """Probability of the noun at its region among all bank nouns; of the region for its noun among the
    photo's regions; or the geometric mean of both."""
    threshold: float = 0.0
    """Least confidence of a pair that is kept."""
    unique: bool = True
    """A region (and what overlaps it by more than `duplicate_iou`) takes only its most confident noun."""
    duplicate_iou: float = 0.7
    """Regions that overlap more than this are the same region."""
    apart_iou: float = 0.3
    """Regions that overlap less than this are different ones; for the margin."""
    bank_size: int = 1000
    """So many of the most frequent nouns compete."""
    most_alike: float = 0.75
    """A bank noun whose vector is closer than this to the noun in question does not compete with it."""


@dataclass(frozen=True)
class Candidate:
    """A noun and its best region."""

    noun: str
    region: int
    """Row among the photo's regions."""
    confidence: float
    cosine: float
    margin: float


@dataclass(frozen=True)
class Lexicon:
    """The nouns of a set of captions.

    Attributes:
        nouns: all of them, the most frequent first.
        features: (n, D) their vectors.
        scale: a cosine times this is a logit.
    """

    nouns: tuple[str, ...]
    features: Features
    scale: float

    def rows(self) -> dict[str, int]:
        """Noun -> its row."""
        return {noun: row for row, noun in enumerate(self.nouns)}


def nouns_of_photos(
    captions: Sequence[Sequence[str]], least_photos: int
) -> tuple[list[list[str]], Counter[str]]:
    """The nouns of every photo, without those (and compounds) that fewer photos have than `least_photos`.

    Returns:
        per photo its nouns, each once; and in how many photos each noun is.
    """
    all_nouns = [
        list(dict.fromkeys(noun for caption in said for noun in caption_nouns(caption))) for said in captions
    ]
    photos = Counter(noun for nouns in all_nouns for noun in nouns)
    kept = {noun: count for noun, count in photos.items() if count >= least_photos}
    return [[noun for noun in nouns if noun in kept] for nouns in all_nouns], Counter(kept)


def softmax(logits: Scores, axis: int) -> Scores:
    """Along an axis; -inf is allowed as long as one value is finite."""
    weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(weights / weights.sum(axis=axis, keepdims=True), dtype=np.float32)


def bank_probability(regions: Features, rows: Sequence[int], lexicon: Lexicon, rules: PairRules) -> Scores:
    """(R, N) probability of each noun at each region among the bank; nouns alike do not compete."""
    bank = lexicon.features[: rules.bank_size]
    bank_logits = lexicon.scale * regions @ bank.T
    wanted = lexicon.features[list(rows)]
    alike = wanted @ bank.T > rules.most_alike
    heads = np.array([noun.split()[-1] for noun in lexicon.nouns[: rules.bank_size]])
    result = np.zeros((len(regions), len(rows)), np.float32)
    for column, row in enumerate(rows):
        noun = lexicon.nouns[row]
        rivals = ~(alike[column] | (heads == noun.split()[-1]))
        own = lexicon.scale * regions @ wanted[column]
        others = bank_logits[:, rivals]
        top = np.maximum(others.max(axis=1, initial=-np.inf), own)
        total = np.exp(own - top) + np.exp(others - top[:, None]).sum(axis=1)
        result[:, column] = np.exp(own - top) / total
    return result


def confidences(regions: Features, rows: Sequence[int], lexicon: Lexicon, rules: PairRules) -> Scores:
    """(R, N) how sure each region is of each noun, by the rule."""
    over_regions = softmax(lexicon.scale * regions @ lexicon.features[list(rows)].T, axis=0)
    if rules.confidence == "regions":
        return over_regions
    over_bank = bank_probability(regions, rows, lexicon, rules)
    return over_bank if rules.confidence == "bank" else np.sqrt(over_bank * over_regions)


def overlaps(masks: NDArray[np.bool_]) -> Scores:
    """(R, R) IoU among (R, H, W) masks."""
    flat = masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32)
    shared = flat @ flat.T
    area = flat.sum(axis=1)
    return np.asarray(shared / np.maximum(area[:, None] + area[None] - shared, 1), dtype=np.float32)


def match(
    regions: Features,
    iou: Scores,
    nouns: Sequence[str],
    lexicon: Lexicon,
    rows: Mapping[str, int],
    rules: PairRules,
) -> list[Candidate]:
    """The best region of each noun, duplicates removed; the most confident first.

    Args:
        regions: (R, D) unit vectors.
        iou: (R, R) overlaps of the regions.
        nouns: of the photo's captions.
        lexicon: all nouns.
        rows: noun -> row of the lexicon.
        rules: how to decide.
    """
    if not len(regions) or not nouns:
        return []
    columns = [rows[noun] for noun in nouns]
    cosine = regions @ lexicon.features[columns].T
    sure = confidences(regions, columns, lexicon, rules)
    found = []
    for column, noun in enumerate(nouns):
        best = int(np.lexsort((cosine[:, column], sure[:, column]))[-1])
        elsewhere = cosine[iou[best] < rules.apart_iou, column]
        margin = cosine[best, column] - (elsewhere.max() if len(elsewhere) else 0.0)
        found.append(
            Candidate(noun, best, float(sure[best, column]), float(cosine[best, column]), float(margin))
        )
    found.sort(key=lambda candidate: (-candidate.confidence, candidate.noun))
    kept: list[Candidate] = []
    for candidate in found:
        same = [other for other in kept if iou[candidate.region, other.region] > rules.duplicate_iou]
        if any(rules.unique or _one_word(candidate.noun, other.noun) for other in same):
            continue
        if candidate.confidence >= rules.threshold:
            kept.append(candidate)
    return kept


def _one_word(noun: str, other: str) -> bool:
    """Whether one is the head of the other: "ball" and "tennis ball"."""
    return noun.split()[-1] == other.split()[-1]
