"""Choosing the numbers of the default rule from examples, and saying how right they are.

1. Regions. Logit scale and hidden bias: maximum likelihood of the right typed name of each named region, or
   of the hidden names where nothing typed is right.
2. Words. A logistic regression on `presence_facts` gives the evidence for a word.
3. Bars. The found threshold is the lowest that keeps enough absent words out of the lists that people type;
   long lists get the lowest addition that makes enough of what is found in them right.
4. Claims. One number after the other, the value with the best sum of sensible overlays and right pixels, less
   the pixels that are coloured where nothing typed is right.
5. Confidence. A logistic regression on its probability says how often a word that claims a region is right.
6. Photo. How much the whole photo's logits count beside a region's in the published rules, for long lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logit

from ovseg_demo.evaluation.metrics import Reliability
from ovseg_demo.merging import Merged, MergeSettings, merge, merge_default, presence_evidence
from ovseg_demo.merging.evidence import LONG_LIST as LONG_LIST_WORDS
from ovseg_demo.merging.evidence import log_sum_exp, presence_facts
from train.evaluation.calibration_data import LONG_LIST, MIXES, Example
from train.evaluation.free_words import SENSIBLE

ABSENT_NOT_FOUND = 0.925
"""Share of absent words that must stay out of typed lists."""
FOUND_PRECISION = 0.8
"""Share of the words found in long lists that must be there."""
STRAYS_WEIGHT = 0.1
"""What a pixel that is coloured where nothing typed is right counts beside one that is right."""

TYPED = f"{MIXES[0][0]} + {MIXES[0][1]}"

PHOTO_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Of step 6."""
CLAIM_VALUES: dict[str, tuple[float, ...]] = {
    "balance": (0.0, 0.35, 0.5, 0.65, 0.8),
    "claim_threshold": (-3.0, -2.0, -1.0, 0.0),
    "presence_weight": (0.0, 0.1, 0.25),
    "surround_margin": (0.0, 0.5, 1.0, 2.0),
    "specificity": (0.05, 0.15, 0.3),
}


def fit_regions(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """Logit scale and hidden bias (step 1)."""
    rows: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]] = []
    for one in examples:
        if one.truth is not None and one.named.any():
            right = one.truth.right[1:][one.named, 1:]
            rows.append((one.scores.typed[one.named], one.scores.hidden[one.named], right))

    def loss(numbers: NDArray[np.float64]) -> float:
        scale, bias = np.exp(numbers[0]), numbers[1]
        total, count = 0.0, 0
        for typed, hidden, right in rows:
            own = scale * typed
            rivals = log_sum_exp(scale * hidden) + bias
            every = np.logaddexp(log_sum_exp(own), rivals)
            inside = np.where(right, own, -np.inf)
            some = right.any(axis=1)
            top = np.where(some, inside.max(axis=1, initial=-1e9), 0.0)
            best = top + np.log(np.exp(inside - top[:, None]).sum(axis=1) + 1e-30)
            total -= float((np.where(some, best, rivals) - every).sum())
            count += len(typed)
        return total / max(count, 1)

    best = minimize(
        loss, np.array([-0.7, -2.0]), method="L-BFGS-B", bounds=[(-4, 2), (-15, 10)], options={"maxiter": 15}
    )
    return replace(
        start, logit_scale=round(float(np.exp(best.x[0])), 4), hidden_bias=round(float(best.x[1]), 4)
    )


def fit_words(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """Weights and bias of the evidence for a word (step 2)."""
    facts = np.concatenate([_facts(one, start)[one.known] for one in examples])
    present = np.concatenate([one.present[one.known] for one in examples])
    facts = np.concatenate([facts, np.ones((len(facts), 1))], axis=1)
    weights = [round(float(weight), 4) for weight in logistic_regression(facts, present.astype(float))]
    return replace(
        start,
        found_region_weight=weights[0],
        found_photo_weight=weights[1],
        found_area_weight=weights[2],
        found_mean_weight=weights[3],
        found_list_weight=weights[4],
        found_bias=weights[5],
    )


def _facts(one: Example, settings: MergeSettings) -> NDArray[np.float64]:
    return presence_facts(one.scores, one.proposals.area_fraction, settings)


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


def fit_thresholds(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """Thresholds for typed and for long lists (step 3)."""
    typed = [one for one in examples if one.kind == TYPED]
    evidence, present = word_evidence(typed, start)
    absent = np.sort(evidence[~present])
    bar = round(float(np.quantile(absent, ABSENT_NOT_FOUND)), 4) if len(absent) else 0.0
    found = replace(start, found_threshold=bar)
    long_lists = [one for one in examples if one.kind == LONG_LIST]
    if not long_lists:
        return found
    evidence, present = word_evidence(long_lists, found)
    length = len(long_lists[0].present)
    more = 0.0
    for candidate in np.sort(np.append(evidence[evidence > bar], np.float32(bar))):
        kept = present[evidence > candidate]
        if not kept.any() or kept.mean() >= FOUND_PRECISION:
            more = max(0.0, float(candidate) - bar)
            break
    factor = more / float(np.log(length / LONG_LIST_WORDS))
    return replace(found, list_threshold=float(np.ceil(1e4 * factor) / 1e4))


def word_evidence(
    examples: Sequence[Example], settings: MergeSettings
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Evidence of all words of which it is known whether they are there, (n,), and whether they are, (n,)."""
    evidence = [
        presence_evidence(one.scores, one.proposals.area_fraction, settings)[one.known] for one in examples
    ]
    return np.concatenate(evidence), np.concatenate([one.present[one.known] for one in examples])


def fit_claims(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """Numbers of claims and pixels, chosen one after the other (step 4)."""
    judged = [one for one in examples if one.kind in (TYPED, "3 + 3")]
    best = start
    for name, values in CLAIM_VALUES.items():
        options = [replace(best, **{name: value}) for value in values]
        best = max(options, key=lambda option: quality(judged, option))
    return best


def quality(examples: Sequence[Example], settings: MergeSettings) -> float:
    """The objective of step 4, in percent."""
    own = pixel_figures(examples, settings)
    return own["sensible"] + own["pixels_right"] - STRAYS_WEIGHT * own["strays"]


def pixel_figures(examples: Sequence[Example], settings: MergeSettings) -> dict[str, float]:
    """Percent of sensible overlays, right pixels (mean over questions) and strays (all pixels together)."""
    shares, strays, bare = [], 0, 0
    for one in examples:
        if one.truth is not None:
            label_map = merge_default(one.scores, one.proposals, settings).label_map
            right, counted, stray, none = one.truth.count(label_map)
            strays, bare = strays + stray, bare + none
            if counted:
                shares.append(right / counted)
    known = np.array(shares or [np.nan])
    return {
        "sensible": 100 * float(np.mean(known >= SENSIBLE)),
        "pixels_right": 100 * float(np.mean(known)),
        "strays": 100 * strays / max(bare, 1),
    }


def fit_confidence(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """Scale and bias of the confidence of claimed regions (step 5)."""
    plain = replace(start, confidence_scale=1.0, confidence_bias=0.0)
    parts: dict[str, list[NDArray[np.generic]]] = {"regions": [], "right": []}
    for one in examples:
        _add_regions(one, merge_default(one.scores, one.proposals, plain), parts)
    confidence = np.concatenate([np.zeros(0), *parts["regions"]]).astype(np.float64)
    if not len(confidence):
        return plain
    facts = np.stack([logit(np.clip(confidence, 1e-6, 1 - 1e-6)), np.ones(len(confidence))], axis=1)
    scale, bias = logistic_regression(facts, np.concatenate(parts["right"]).astype(float))
    return replace(plain, confidence_scale=round(float(scale), 4), confidence_bias=round(float(bias), 4))


def fit_photo_weight(examples: Sequence[Example], start: MergeSettings) -> MergeSettings:
    """The photo's weight with which benchmark merging gets most pixels right (step 6).

    Args:
        examples: questions with more names than people type; their mean over questions counts.
        start: all other numbers.
    """
    options = [replace(start, photo_weight=weight) for weight in PHOTO_WEIGHTS]
    return max(options, key=lambda option: benchmark_pixels_right(examples, option))


def benchmark_pixels_right(examples: Sequence[Example], settings: MergeSettings) -> float:
    """Percent of pixels right by benchmark merging, mean over questions."""
    shares = []
    for one in examples:
        if one.truth is not None:
            names = [str(number) for number in range(len(one.present))]
            merged = merge("benchmark", one.scores, one.proposals, names, settings)
            right, counted, *_ = one.truth.count(merged.label_map)
            if counted:
                shares.append(right / counted)
    return 100 * float(np.mean(shares or [np.nan]))


def fit(examples: Sequence[Example], start: MergeSettings | None = None) -> MergeSettings:
    """The first five steps."""
    settings = start or MergeSettings()
    for step in (fit_regions, fit_words, fit_thresholds, fit_claims, fit_confidence):
        settings = step(examples, settings)
    return settings


def held_out_reliability(
    examples: Sequence[Example], settings: MergeSettings
) -> tuple[Reliability, Reliability]:
    """Of words and of claimed regions, on photos that took no part in fitting: each half fits the other.

    Claims and thresholds are kept as chosen; the probabilities are fitted again.
    """
    photos = sorted({one.photo for one in examples})
    half = {photo: number % 2 for number, photo in enumerate(photos)}
    parts: dict[str, list[NDArray[np.generic]]] = {"words": [], "present": [], "regions": [], "right": []}
    for part in (0, 1):
        chosen = [one for one in examples if half[one.photo] != part]
        own = fit_confidence(chosen, fit_words(chosen, fit_regions(chosen, settings)))
        for one in examples:
            if half[one.photo] == part:
                merged = merge_default(one.scores, one.proposals, own)
                parts["words"].append(merged.confidence[one.known])
                parts["present"].append(one.present[one.known])
                _add_regions(one, merged, parts)
    joined = {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}
    return (
        Reliability.of(joined["words"].astype(np.float64), joined["present"].astype(np.bool_)),
        Reliability.of(joined["regions"].astype(np.float64), joined["right"].astype(np.bool_)),
    )


def _add_regions(one: Example, merged: Merged, parts: dict[str, list[NDArray[np.generic]]]) -> None:
    if one.truth is not None:
        judged = one.named & (merged.region_class > 0)
        parts["regions"].append(merged.region_confidence[judged])
        parts["right"].append(one.truth.right[1:][judged, merged.region_class[judged]])
