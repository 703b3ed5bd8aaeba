"""What speaks for a word: its scores, and the two probabilities that every confidence of a result is one of.

    P(word c is right for region r) = exp(a t_rc) / (sum_k exp(a t_rk) + exp(b) sum_d exp(a h_rd))
    P(word c is in the photo)       = sigmoid(bias + weights . facts of the word), see `presence_facts`

with t and h the logits of typed and hidden names, a the logit scale and b the hidden bias. Both are
calibrated on photos that no weights were trained on (`train/calibrate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LONG_LIST = 15
"""So many words are typed by hand; longer lists come from presets, and few of their words are there."""
_FAR = 20.0
"""Log-odds of a name without competing names."""


@dataclass(frozen=True)
class MergeSettings:
    """The numbers of the default rule, chosen for each arm on held-out photos (train/calibrate.py)."""

    logit_scale: float = 1.0
    """What logits are multiplied with: calibrated, they are less extreme than in training."""
    hidden_bias: float = 0.0
    """Added to the logit of all hidden names together."""
    found_bias: float = 0.0
    """Bias of the evidence for a word, whose sigmoid is the probability that it is in the photo."""
    found_region_weight: float = 1.0
    """Weight of the best region's log-odds against the hidden names."""
    found_photo_weight: float = 0.0
    """Weight of the whole photo's log-odds against the hidden names."""
    found_area_weight: float = 0.0
    """Weight of the logarithm of the share of the photo that the word is expected to cover."""
    found_mean_weight: float = 0.0
    """Weight of the mean log-odds over the photo; below 0, a word that fits everything a little loses."""
    found_list_weight: float = 0.0
    """Weight of the logarithm of the number of typed words; below 0, long lists ask more of each."""
    found_threshold: float = 0.0
    """A word is found where its evidence is above this."""
    list_threshold: float = 0.0
    """Added to it for lists of more than LONG_LIST words, times the logarithm of how many times as long."""
    claim_threshold: float = 0.0
    """A word claims a region where its log-odds against the hidden names are above this."""
    balance: float = 0.0
    """How far found words share the regions out, 0..1: see `balanced_log_odds`."""
    presence_weight: float = 0.0
    """How much the evidence for a word counts when regions choose between found words."""
    surround_margin: float = 1.0
    """A region loses its word to a region that it encloses where that one's log-odds are higher by this."""
    confidence_scale: float = 1.0
    """A region that a word claims is right with the log-odds of its probability times this ..."""
    confidence_bias: float = 0.0
    """... plus this: that the word was found speaks for it."""
    specificity: float = 0.15
    """How strongly a small region is preferred to a large one that is as sure."""
    quality_power: float = 1.0
    """How strongly a proposal's own quality counts."""
    photo_weight: float = 0.0
    """Published rules, lists of more than LONG_LIST words: weight of the photo's logits beside a region's."""

    @classmethod
    def of(cls, calibration: Mapping[str, float]) -> MergeSettings:
        """From the numbers beside some weights; the defaults if they were chosen for an earlier rule."""
        known = {one.name for one in fields(cls)}
        return cls(**calibration) if calibration.keys() <= known else cls()

    def stricter(self, by: float) -> MergeSettings:
        """The same with log-odds of `by` more needed to be found and to claim a region; less if negative."""
        return replace(
            self, claim_threshold=self.claim_threshold + by, found_threshold=self.found_threshold + by
        )


@dataclass(frozen=True)
class Scores:
    """Scores of the regions of one photo by the classifier.

    Attributes:
        typed: (R, C) float32 logits of the typed classes (a class is its best synonym).
        hidden: (R, D) float32 logits of the hidden names.
        photo_typed: (C,) float32 logits of the whole photo.
        photo_hidden: (D,) float32 logits of the whole photo.
        others: (R,) float32 logits of the word "others", which the published demo adds to a single name.
        queries: (N, C + 2) float32 logits that a segmenter gives its own N masks: the typed classes,
            "others", no object. None if the proposer names nothing, or lives in another text space.
        hidden_names: the D hidden names; empty where they are not used.
        parts: (R, P) float32 logits of names of parts that were not typed.
        wholes: (P, C) bool, which typed classes each part may be a part of.
    """

    typed: Floats
    hidden: Floats
    photo_typed: Floats
    photo_hidden: Floats
    others: Floats
    queries: Floats | None = None
    hidden_names: tuple[str, ...] = ()
    parts: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    wholes: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.bool_))


def log_sum_exp(values: Floats) -> Floats:
    """Over the last axis; -inf where it is empty."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], -np.inf, dtype=np.float32)
    top = values.max(axis=-1, keepdims=True)
    return np.asarray((top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True)))[..., 0])


def probabilities(typed: Floats, hidden: Floats, settings: MergeSettings | None = None) -> Floats:
    """P(word is right) of the module's first formula, (..., C); the hidden names have their share beside it.

    Args:
        typed: (..., C) logits.
        hidden: (..., D) logits.
        settings: logit scale and hidden bias; a plain softmax if None.
    """
    return shares_of(log_odds(typed, hidden, settings))


def shares_of(odds: Floats) -> Floats:
    """Log-odds against the hidden names -> P(word is right), (..., C): the module's first formula."""
    total = np.logaddexp(log_sum_exp(odds), 0)
    return np.asarray(np.exp(odds - total[..., None]), dtype=np.float32)


def log_odds(typed: Floats, hidden: Floats, settings: MergeSettings | None = None) -> Floats:
    """Log-odds of each typed name against all hidden ones, (..., C).

    Other typed names take no part, but a hidden name that resembles any of them does not compete with any:
    where a horse is asked for, "horse" does not compete with a zebra either. Letting it compete finds fewer
    present names and more absent ones (model card, "Tried").
    Where no hidden name may compete (all of them were typed), every typed one is far above them.
    """
    settings = settings or MergeSettings()
    own = settings.logit_scale * typed
    if not hidden.shape[-1]:
        return np.asarray(own - own.min(axis=-1, keepdims=True) + _FAR, dtype=np.float32)
    rivals = log_sum_exp(settings.logit_scale * hidden) + settings.hidden_bias
    return np.asarray(own - rivals[..., None], dtype=np.float32)


def balanced_log_odds(odds: Floats, found: NDArray[np.bool_], settings: MergeSettings) -> Floats:
    """Log-odds of words and regions balanced over the regions, (R, C).

    A word that fits every region of a photo a little would take them all from words that fit one of them.
    The log-odds of each found word c are therefore reduced by what all regions together give it:

        odds_rc - balance * (log sum_r' exp(odds_r'c) - its mean over the found words)

    With a balance of 1 this is one step of Sinkhorn's normalisation, the two-sided softmax of matching. One
    found word alone is not reduced; words that are not found take no part.

    Args:
        odds: (R, C) log-odds against the hidden names.
        found: (C,) bool.
        settings: `balance`, the weight of the reduction.
    """
    if not settings.balance or not found.any() or not len(odds):
        return odds
    together = log_sum_exp(odds.T)
    price = np.where(found, together - together[found].mean(), 0)
    return np.asarray(odds - settings.balance * price, dtype=np.float32)


def presence_facts(
    scores: Scores, area_fraction: NDArray[np.float64], settings: MergeSettings
) -> NDArray[np.float64]:
    """Evidence for the presence of each typed class, (C, 5).

    Columns: the best region's log-odds, the whole photo's, the logarithm of the expected share of the photo
    (sum over regions of probability x area; nested regions count each), the mean log-odds of all regions
    weighted by their area, the logarithm of the list's length.
    """
    count = scores.typed.shape[1]
    regions = log_odds(scores.typed, scores.hidden, settings)
    best = regions.max(axis=0) if len(regions) else np.full(count, -_FAR)
    photo = log_odds(scores.photo_typed, scores.photo_hidden, settings)
    expected = np.log((shares_of(regions) * area_fraction[:, None]).sum(axis=0) + 1e-3)
    mean = np.average(regions, axis=0, weights=area_fraction) if len(regions) else best
    length = np.full(count, np.log(max(count, 1)))
    return np.stack([best, photo, expected, mean, length], axis=1).astype(np.float64)


def presence_evidence(scores: Scores, area_fraction: NDArray[np.float64], settings: MergeSettings) -> Floats:
    """(C,) log-odds that each class is in the photo."""
    weights = np.array(
        [
            settings.found_region_weight,
            settings.found_photo_weight,
            settings.found_area_weight,
            settings.found_mean_weight,
            settings.found_list_weight,
        ]
    )
    evidence = presence_facts(scores, area_fraction, settings) @ weights + settings.found_bias
    return np.asarray(evidence, dtype=np.float32)


def found_threshold(count: int, settings: MergeSettings) -> float:
    """The evidence that a word needs in a list of so many; the bar rises with the length of the list."""
    return settings.found_threshold + settings.list_threshold * max(
        0.0, float(np.log(max(count, 1) / LONG_LIST))
    )
