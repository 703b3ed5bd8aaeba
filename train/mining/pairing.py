"""Third step: pair each noun of a photo's captions with the region that CLIP matches best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.mining.features import Features
from train.mining.nouns import caption_nouns

Scores = NDArray[np.float32]
_MEAN_COUNTS_AS = 4.0  # photos, in `baseline_levels`


@dataclass(frozen=True)
class PairRules:
    """How regions and nouns are paired. The defaults were chosen on COCO train2017 (`precision.py`)."""

    confidence: Literal["contrast", "bank", "regions", "both"] = "contrast"
    """Confidence of a pair, and the score that selects a noun's best region.

    "bank": probability of the noun at its region among all bank nouns. "regions": of the region for its noun
    among the photo's regions. "both": the geometric mean of these two. "contrast": the log-odds of "bank",
    with large and good proposals preferred, minus its mean over the best regions of photos whose captions do
    not have the noun; 0.5 = no better than there.
    """
    threshold: float = 0.0
    """Least confidence of a pair that is kept."""
    unique: bool = True
    """A region, and those that overlap it by more than `duplicate_iou`, keep the most confident noun only."""
    duplicate_iou: float = 0.7
    """Regions that overlap more than this are the same region."""
    apart_iou: float = 0.3
    """Regions that overlap less than this are different ones; for the margin."""
    area_weight: float = 0.5
    """Weight of the log of a region's area fraction in "contrast": nouns name wholes more than parts."""
    quality_weight: float = 3.0
    """Weight of a proposal's quality in "contrast"."""


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
    """The nouns of a set of captions; the first ones are the bank that every noun competes with.

    Attributes:
        nouns: all n of them, the most frequent first.
        features: (n, D) their vectors.
        scale: a cosine times this is a logit.
        bank_size: number of nouns in the bank.
        most_alike: nouns whose cosine is above this count as synonyms and do not compete.
        baseline: (n,) from `baseline_levels`; needed for the confidence "contrast" only.
    """

    nouns: tuple[str, ...]
    features: Features
    scale: float
    bank_size: int = 2000
    most_alike: float = 0.6
    baseline: Scores = field(default_factory=lambda: np.zeros(0, np.float32))

    @cached_property
    def rows(self) -> dict[str, int]:
        """Noun -> its row."""
        return {noun: row for row, noun in enumerate(self.nouns)}

    @cached_property
    def heads(self) -> NDArray[np.str_]:
        """(n,) the last word of each noun, its head."""
        return np.array([noun.split()[-1] for noun in self.nouns])

    @cached_property
    def non_competing(self) -> NDArray[np.bool_]:
        """(n, bank) which bank nouns do not compete with a noun."""
        return self.alike(range(len(self.nouns)), self.bank_size)

    def alike(self, rows: Sequence[int], columns: int) -> NDArray[np.bool_]:
        """(rows, columns) which of the first nouns mean the same: close vectors, or the same head."""
        chosen = list(rows)
        close = self.features[chosen] @ self.features[:columns].T > self.most_alike
        return np.asarray(close | (self.heads[chosen][:, None] == self.heads[:columns]))


def nouns_of_photos(
    captions: Sequence[Sequence[str]], least_photos: int, labels: Sequence[Sequence[str]] = ()
) -> tuple[list[list[str]], Counter[str]]:
    """The nouns of every photo, from its captions and its labels.

    Nouns and compounds of captions in fewer than `least_photos` photos are left out. Labels were chosen by
    people, so they count however rare they are.

    Args:
        captions: per photo.
        least_photos: nouns of captions in fewer photos are left out.
        labels: per photo; may be left out.

    Returns:
        per photo its nouns, each once; and in how many photos each noun is.
    """
    all_nouns = [
        list(dict.fromkeys(noun for caption in said for noun in caption_nouns(caption))) for said in captions
    ]
    for nouns, names in zip(all_nouns, labels, strict=bool(labels)):
        nouns[:] = dict.fromkeys([*nouns, *names])
    photos = Counter(noun for nouns in all_nouns for noun in nouns)
    chosen = {name for names in labels for name in names}
    kept = {noun: count for noun, count in photos.items() if count >= least_photos or noun in chosen}
    return [[noun for noun in nouns if noun in kept] for nouns in all_nouns], Counter(kept)


def softmax(logits: Scores, axis: int) -> Scores:
    """Along an axis; -inf is allowed as long as one value is finite."""
    weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(weights / weights.sum(axis=axis, keepdims=True), dtype=np.float32)


def bank_log_odds(regions: Features, rows: Sequence[int], lexicon: Lexicon) -> Scores:
    """(R, N) log-odds of each noun at each region against the bank without its synonyms."""
    chosen = list(rows)
    logits = lexicon.scale * (regions @ lexicon.features[: lexicon.bank_size].T).astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - top)
    rivals = weights.sum(axis=1, keepdims=True) - weights @ lexicon.non_competing[chosen].T.astype(np.float64)
    own = lexicon.scale * (regions @ lexicon.features[chosen].T) - top
    return np.asarray(own - np.log(np.maximum(rivals, 1e-9)), dtype=np.float32)


def sigmoid(logits: Scores) -> Scores:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)


@dataclass(frozen=True)
class PhotoView:
    """The regions of one photo.

    Attributes:
        features: (R, D) unit vectors.
        area: (R,) fractions of the photo.
        quality: (R,) of the proposals, 0..1.
        iou: (R, R) overlaps; may be empty where nothing is matched.
    """

    features: Features
    area: Scores
    quality: Scores
    iou: Scores

    def prior(self, rules: PairRules) -> Scores:
        """(R, 1) preference for large and good regions."""
        size = rules.area_weight * np.log(np.maximum(self.area, 1e-4))
        return np.asarray(size + rules.quality_weight * self.quality, dtype=np.float32)[:, None]


def baseline_levels(
    views: Sequence[PhotoView], nouns: Sequence[Sequence[str]], lexicon: Lexicon, rules: PairRules
) -> Scores:
    """(n,) mean score of the best region over photos whose captions do not have the noun.

    Photos whose captions have a synonym are left out. The mean over all nouns counts as four further photos.

    Args:
        views: some photos.
        nouns: of their captions.
        lexicon: all nouns.
        rules: how regions are preferred.
    """
    size = len(lexicon.nouns)
    total, count = np.zeros(size), np.zeros(size)
    for view, said in zip(views, nouns, strict=True):
        if not len(view.features):
            continue
        best = (bank_log_odds(view.features, range(size), lexicon) + view.prior(rules)).max(axis=0)
        absent = np.ones(size, dtype=np.bool_)
        if said:
            absent = np.asarray(~lexicon.alike([lexicon.rows[noun] for noun in said], size).any(axis=0))
        total += np.where(absent, best, 0.0)
        count += absent
    baseline = total.sum() / max(count.sum(), 1.0)
    return np.asarray((total + _MEAN_COUNTS_AS * baseline) / (count + _MEAN_COUNTS_AS), dtype=np.float32)


def confidences(
    view: PhotoView, rows: Sequence[int], lexicon: Lexicon, rules: PairRules
) -> tuple[Scores, Scores]:
    """Score and confidence of each noun at each region.

    Returns:
        (R, N) scores that select a noun's best region, of any range and never saturated, and (R, N)
        confidences in 0..1, which rise with the scores.
    """
    log_odds = bank_log_odds(view.features, rows, lexicon)
    if rules.confidence == "contrast":
        log_odds = log_odds + view.prior(rules) - lexicon.baseline[list(rows)]
        return log_odds, sigmoid(log_odds)
    if rules.confidence == "bank":
        return log_odds, sigmoid(log_odds)
    logits = np.asarray(lexicon.scale * view.features @ lexicon.features[list(rows)].T, dtype=np.float32)
    if rules.confidence == "regions":
        return logits, softmax(logits, axis=0)
    both = np.asarray(np.sqrt(sigmoid(log_odds) * softmax(logits, axis=0)), dtype=np.float32)
    return both, both


def overlaps(masks: NDArray[np.bool_]) -> Scores:
    """(R, R) IoU among (R, H, W) masks."""
    flat = masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32)
    shared = flat @ flat.T
    area = flat.sum(axis=1)
    return np.asarray(shared / np.maximum(area[:, None] + area[None] - shared, 1), dtype=np.float32)


def match(view: PhotoView, nouns: Sequence[str], lexicon: Lexicon, rules: PairRules) -> list[Candidate]:
    """The best region of each noun without duplicates, the most confident first.

    Args:
        view: the photo's regions.
        nouns: of the photo's captions.
        lexicon: all nouns.
        rules: how to decide.
    """
    if not len(view.features) or not nouns:
        return []
    columns = [lexicon.rows[noun] for noun in nouns]
    cosine = view.features @ lexicon.features[columns].T
    better, sure = confidences(view, columns, lexicon, rules)
    found = []
    for column, noun in enumerate(nouns):
        best = int(np.lexsort((cosine[:, column], better[:, column]))[-1])
        elsewhere = cosine[view.iou[best] < rules.apart_iou, column]
        margin = cosine[best, column] - (elsewhere.max() if len(elsewhere) else 0.0)
        found.append(
            Candidate(noun, best, float(sure[best, column]), float(cosine[best, column]), float(margin))
        )
    found.sort(key=lambda candidate: (-candidate.confidence, candidate.noun))
    kept: list[Candidate] = []
    for candidate in found:
        same = [other for other in kept if view.iou[candidate.region, other.region] > rules.duplicate_iou]
        if any(rules.unique or _one_word(candidate.noun, other.noun) for other in same):
            continue
        if candidate.confidence >= rules.threshold:
            kept.append(candidate)
    return kept


def _one_word(noun: str, other: str) -> bool:
    """Whether one noun ends in the other: "ball" and "tennis ball"."""
    return noun.split()[-1] == other.split()[-1]
