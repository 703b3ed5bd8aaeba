"""The default rule: which word each region gets, and which region each pixel.

SAM's masks nest, so the best-supported, most specific region decides a pixel. Hidden names compete with the
typed ones, so that a word that is not in the photo claims nothing. `evidence.py` has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.merging.evidence import (
    Floats,
    MergeSettings,
    Scores,
    balanced_log_odds,
    found_threshold,
    log_odds,
    log_sum_exp,
    presence_evidence,
    shares_of,
)
from ovseg_demo.proposals.base import Proposals

SPECK = 0.003
"""A word whose largest piece covers less of the photo is found, but never sure."""
SPECK_CONFIDENCE = 0.6
"""Highest confidence of such a word; the page calls 0.75 and more sure."""


@dataclass(frozen=True)
class Merged:
    """What a merge rule decides.

    Attributes:
        label_map: (h, w) uint16, 0 = unassigned, i = the i-th class.
        region_map: (h, w) uint16, 0 = none, k = the k-th proposal.
        region_class: (R,) int, 0 = nothing claims the region, i = the i-th class.
        region_confidence: (R,) float in 0..1, of the class of the region, or the best one if it has none.
        found: (C,) bool.
        confidence: (C,) float in 0..1, that the class is in the photo.
        probabilities: (R, C) float32, of every region for every typed class.
        closest_hidden: R hidden names, each what fits the region better than every typed name; "" = none.
    """

    label_map: NDArray[np.uint16]
    region_map: NDArray[np.uint16]
    region_class: NDArray[np.int64]
    region_confidence: Floats
    found: NDArray[np.bool_]
    confidence: Floats
    probabilities: Floats
    closest_hidden: tuple[str, ...]


def merge_default(scores: Scores, proposals: Proposals, settings: MergeSettings | None = None) -> Merged:
    """Decide regions, then pixels.

    1. A class is *found* if the evidence for it is strong enough.
    2. Found classes compete for the regions (`balanced_log_odds`): each region takes its most probable one,
       or none if hidden names outweigh it too much. The best region of a found class is lost neither to
       hidden names nor, as a rule, to other words.
    3. A region that is best named as a part of a found class, and lies at a region of it, goes to that class.
    4. A region that encloses a surer region of the same class takes its next class, or none: the sky around
       an airplane is no airplane.
    5. Each pixel belongs to the covering region of the most support:
       support = probability x quality^a x area_fraction^-b. Regions that nothing claims take no pixels.
    """
    settings = settings or MergeSettings()
    evidence = presence_evidence(scores, proposals.area_fraction, settings)
    found = evidence > found_threshold(len(evidence), settings)
    every = balanced_log_odds(log_odds(scores.typed, scores.hidden, settings), found, settings)
    shares = shares_of(every)
    region_class = np.zeros(len(proposals), dtype=np.int64)
    if found.any() and len(proposals):
        odds = np.where(found, every, -np.inf)
        choice = odds + settings.presence_weight * evidence
        best = _best_words(choice, found)
        claimed = np.take_along_axis(odds, best[:, None], axis=1)[:, 0] > settings.claim_threshold
        for c in np.flatnonzero(found):
            own = np.where(best == c, odds[:, c], -np.inf)
            claimed[own.argmax()] |= bool(np.isfinite(own.max()))
        region_class = np.where(claimed, best + 1, 0)
        shares = _parts_to_wholes(scores, proposals, region_class, found, shares, settings)
        _release_enclosing_regions(proposals, region_class, choice, odds, shares, settings)
        shares = shares_of_claims(shares, region_class, settings)
    region_confidence = shares.max(axis=1, initial=0.0)
    claims = np.flatnonzero(region_class)
    region_confidence[claims] = shares[claims, region_class[claims] - 1]
    label_map, region_map = paint(proposals, region_class, region_confidence, settings)
    # A class that ends up without a pixel was outdone everywhere: it is not shown as found.
    found = found & np.isin(np.arange(1, len(found) + 1), label_map)
    return Merged(
        label_map=label_map,
        region_map=region_map,
        region_class=region_class,
        region_confidence=np.asarray(region_confidence, dtype=np.float32),
        found=found,
        confidence=_lower_speck_confidence(_sigmoid(evidence), found, label_map),
        probabilities=shares,
        closest_hidden=_closest_hidden(scores),
    )


def _best_words(choice: Floats, found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The best word of each region, (R,) from (R, C); a found word that is nowhere best gets its best region.

    It does not get a region that is the best one of the word it would be taken from.
    """
    best: NDArray[np.int64] = choice.argmax(axis=1)
    for c in np.flatnonzero(found):
        if (best == c).any():
            continue
        k = choice[:, c].argmax()
        if choice[:, best[k]].argmax() != k:
            best[k] = c
    return best


def _parts_to_wholes(
    scores: Scores,
    proposals: Proposals,
    region_class: NDArray[np.int64],
    found: NDArray[np.bool_],
    shares: Floats,
    settings: MergeSettings,
) -> Floats:
    """Give regions that are best named as a part to their whole, in place; the shares with theirs raised."""
    if not scores.parts.size:
        return shares
    rivals = np.maximum(scores.typed.max(axis=1), scores.hidden.max(axis=1, initial=-np.inf))
    part = scores.parts.argmax(axis=1)
    before, raised = region_class.copy(), shares
    total = np.logaddexp(
        np.logaddexp(
            log_sum_exp(settings.logit_scale * scores.typed),
            log_sum_exp(settings.logit_scale * scores.hidden) + settings.hidden_bias,
        ),
        log_sum_exp(settings.logit_scale * scores.parts) + settings.hidden_bias,
    )
    for k in np.flatnonzero(scores.parts.max(axis=1) > rivals):
        wholes = np.flatnonzero(scores.wholes[part[k]] & found)
        wholes = np.array([c for c in wholes if _lies_at(proposals, int(k), before == c + 1)], dtype=np.int64)
        if len(wholes) and before[k] - 1 not in wholes:
            c = wholes[scores.typed[k, wholes].argmax()]
            raised = raised.copy() if raised is shares else raised
            own = settings.logit_scale * scores.parts[k, scores.wholes[:, c]]
            share = np.exp(log_sum_exp(own) + settings.hidden_bias - total[k])
            raised[k, c] = max(raised[k, c], min(float(share), 1 - float(np.delete(shares[k], c).sum())))
            region_class[k] = c + 1
    return raised


def shares_of_claims(shares: Floats, region_class: NDArray[np.int64], settings: MergeSettings) -> Floats:
    """Correct the share of the word that claims each region; the others divide what is left as before."""
    claims = np.flatnonzero(region_class)
    columns = region_class[claims] - 1
    before = np.clip(shares[claims, columns].astype(np.float64), 1e-6, 1 - 1e-6)
    after = _sigmoid(
        np.asarray(settings.confidence_scale * _logit(before) + settings.confidence_bias, dtype=np.float32)
    )
    corrected = shares.copy()
    corrected[claims] *= ((1 - after) / (1 - before))[:, None]
    corrected[claims, columns] = after
    return corrected


def _lies_at(proposals: Proposals, k: int, others: NDArray[np.bool_]) -> bool:
    """Whether at least half of a region's box lies in that of one of some larger regions."""
    others = others & (proposals.area_fraction > proposals.area_fraction[k])
    boxes, own = proposals.boxes[others].astype(np.int64), proposals.boxes[k].astype(np.int64)
    sides = np.minimum(boxes[:, 2:], own[2:]) - np.maximum(boxes[:, :2], own[:2])
    inside = np.clip(sides, 0, None).prod(axis=1)
    return bool((2 * inside >= (own[2:] - own[:2]).prod()).any())


def _release_enclosing_regions(
    proposals: Proposals,
    region_class: NDArray[np.int64],
    choice: Floats,
    odds: Floats,
    shares: Floats,
    settings: MergeSettings,
) -> None:
    """Take the word from regions that enclose a surer one of the same word, in place."""
    area, before, sure = proposals.area_fraction, region_class.copy(), _logit(shares)
    for outer in np.flatnonzero(before):
        c = before[outer] - 1
        inner = np.flatnonzero(
            (before == before[outer])
            & (area < area[outer])
            & (sure[:, c] > sure[outer, c] + settings.surround_margin)
        )
        if not len(inner):
            continue
        left, top, right, bottom = proposals.boxes[outer]
        window = np.s_[top:bottom, left:right]  # beyond it nothing has the mask on three sides
        enclosed = np.zeros_like(proposals.masks[outer])
        enclosed[window] = enclosed_by(proposals.masks[outer][window])
        for k in inner:
            left, top, right, bottom = proposals.boxes[k]
            window = np.s_[top:bottom, left:right]
            own = proposals.masks[k][window]
            size = np.count_nonzero(own)
            apart = np.count_nonzero(own & proposals.masks[outer][window]) <= 0.2 * size
            if apart and np.count_nonzero(own & enclosed[window]) >= 0.8 * size:
                others = choice[outer].copy()
                others[c] = -np.inf
                next_best = int(others.argmax())
                claims = np.isfinite(others[next_best]) and odds[outer, next_best] > settings.claim_threshold
                region_class[outer] = next_best + 1 if claims else 0
                break


def enclosed_by(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with the mask on at least three of their four sides, at any distance; (H, W) bool."""
    left_and_right = _between_ends(mask)
    above_and_below = _between_ends(np.ascontiguousarray(mask.T)).T
    return np.asarray(left_and_right + above_and_below >= 3)


def _between_ends(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many ways along its row, 0 to 2, lead from each pixel to one of the mask; (H, W)."""
    columns, some = np.arange(mask.shape[1]), np.asarray(mask.any(axis=1))
    first = np.where(some, mask.argmax(axis=1), len(columns))
    last = np.where(some, len(columns) - 1 - np.ascontiguousarray(mask[:, ::-1]).argmax(axis=1), -1)
    after, before = columns >= first[:, None], columns <= last[:, None]
    return np.asarray(after.view(np.uint8) + before, dtype=np.uint8)


def _lower_speck_confidence(
    confidence: Floats, found: NDArray[np.bool_], label_map: NDArray[np.uint16]
) -> Floats:
    """Lower the confidence of found classes whose largest piece is a speck."""
    lowered = confidence.copy()
    for c in np.flatnonzero(found & (confidence > SPECK_CONFIDENCE)):
        own = (label_map == c + 1).astype(np.uint8)
        pieces = cv2.connectedComponentsWithStats(own, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        if pieces.max(initial=0) < SPECK * own.size:
            lowered[c] = SPECK_CONFIDENCE
    return lowered


def _closest_hidden(scores: Scores) -> tuple[str, ...]:
    """The best hidden name of each region where it beats every typed one."""
    if not scores.hidden_names or not scores.typed.shape[1]:
        return ("",) * len(scores.typed)
    best = scores.hidden.argmax(axis=1)
    beats = scores.hidden.max(axis=1) > scores.typed.max(axis=1)
    return tuple(scores.hidden_names[d] if b else "" for d, b in zip(best, beats, strict=True))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)


def _logit(shares: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    clipped = np.clip(shares.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def paint(
    proposals: Proposals,
    region_class: NDArray[np.int64],
    region_confidence: NDArray[np.floating[Any]],
    settings: MergeSettings,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Paint claimed regions from the least to the most supported; the last one on a pixel owns it."""
    height, width = proposals.masks.shape[1:]
    label_map = np.zeros((height, width), dtype=np.uint16)
    region_map = np.zeros((height, width), dtype=np.uint16)
    support = (
        region_confidence
        * proposals.quality**settings.quality_power
        * np.maximum(proposals.area_fraction, 1e-6) ** -settings.specificity
    )
    for k in np.argsort(support, kind="stable"):
        if region_class[k]:
            left, top, right, bottom = proposals.boxes[k]
            window = np.s_[top:bottom, left:right]
            inside = proposals.masks[k][window]
            label_map[window][inside] = region_class[k]
            region_map[window][inside] = k + 1
    return label_map, region_map
