"""From region scores to a label map: which word each region gets, and which region each pixel.

The published rules add masks up; that suits a segmenter whose masks hardly overlap. SAM's masks nest, so here
the best-supported, most specific region decides a pixel, and hidden names compete with the typed ones, so
that a word that is not in the photo claims nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_demo.errors import SettingsError
from ovseg_demo.proposals.base import Proposals
from ovseg_demo.published_rules import DEMO_MASK_THRESHOLD, PublishedRule, demo_names, merge_published


@dataclass(frozen=True)
class MergeSettings:
    """The numbers of the default rule, calibrated on COCO train2017 (train/calibrate.py)."""

    specificity: float = 0.15
    """How strongly a small region is preferred to a large one that is as sure."""
    quality_power: float = 1.0
    """How strongly a proposal's own quality counts."""
    claim_bias: float = 1.0
    """Added to a region's log-odds for its best found word, which claims the region where that is above 0."""
    presence_weight: float = 0.5
    """How much the evidence for a word counts when regions choose between found words."""
    found_bias: float = 0.0
    """Added to the evidence for a word; it is found where the evidence is above 0."""
    found_region_weight: float = 1.0
    """Weight of the best region's log-odds in the evidence."""
    found_photo_weight: float = 0.0
    """Weight of the whole photo's log-odds in the evidence."""

    def stricter(self, by: float) -> MergeSettings:
        """The same with log-odds of `by` more needed to be found and to claim a region; less if negative."""
        return replace(self, claim_bias=self.claim_bias - by, found_bias=self.found_bias - by)


@dataclass(frozen=True)
class Scores:
    """What the classifier says of the regions of one photo.

    Attributes:
        typed: (R, C) float32 logits of the typed classes (a class is its best synonym).
        hidden: (R, D) float32 logits of the hidden names.
        photo_typed: (C,) float32 logits of the whole photo.
        photo_hidden: (D,) float32 logits of the whole photo.
        others: (R,) float32 logits of the word "others", the published demo's rival of a single name.
        queries: (N, C + 2) float32 logits that a segmenter gives its own N masks: the typed classes,
            "others", no object. None if the proposer names nothing, or lives in another text space.
    """

    typed: NDArray[np.float32]
    hidden: NDArray[np.float32]
    photo_typed: NDArray[np.float32]
    photo_hidden: NDArray[np.float32]
    others: NDArray[np.float32]
    queries: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Merged:
    """What a merge rule decides.

    Attributes:
        label_map: (h, w) uint16, 0 = unassigned, i = the i-th class.
        region_map: (h, w) uint16, 0 = none, k = the k-th proposal.
        region_class: (R,) int, 0 = nothing claims the region, i = the i-th class.
        region_confidence: (R,) float in 0..1.
        found: (C,) bool.
        confidence: (C,) float in 0..1, that the class is in the photo.
        probabilities: (R, C) float32, of every region for every typed class.
    """

    label_map: NDArray[np.uint16]
    region_map: NDArray[np.uint16]
    region_class: NDArray[np.int64]
    region_confidence: NDArray[np.float32]
    found: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def probabilities(typed: NDArray[np.float32], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over typed and hidden names together; the columns of the typed ones, (..., C)."""
    both = np.concatenate([typed, hidden], axis=-1)
    weights = np.exp(both - both.max(axis=-1, keepdims=True))
    return np.asarray((weights / weights.sum(-1, keepdims=True))[..., : typed.shape[-1]], dtype=np.float32)


def log_odds(typed: NDArray[np.float32], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-odds of each typed name against all hidden ones: typed - log sum exp(hidden), (..., C).

    Other typed names take no part, but a hidden name that resembles any of them has stepped back for all:
    where a horse is asked for, "horse" no longer speaks against a zebra. Letting it speak there finds fewer
    present names and more absent ones (model card, "Tried").
    Where no hidden name may compete (all of them were typed), every typed one is far above them.
    """
    if not hidden.shape[-1]:
        return np.asarray(typed - typed.min(axis=-1, keepdims=True) + 20, dtype=np.float32)
    top = hidden.max(axis=-1, keepdims=True)
    rivals = top + np.log(np.exp(hidden - top).sum(axis=-1, keepdims=True))
    return np.asarray(typed - rivals, dtype=np.float32)


def presence_evidence(scores: Scores, settings: MergeSettings) -> NDArray[np.float32]:
    """(C,) evidence that each class is in the photo; above 0 = found."""
    photo = log_odds(scores.photo_typed, scores.photo_hidden)
    regions = log_odds(scores.typed, scores.hidden)
    best = regions.max(axis=0) if len(regions) else np.full(photo.shape, -20.0)
    return np.asarray(
        settings.found_bias + settings.found_region_weight * best + settings.found_photo_weight * photo,
        dtype=np.float32,
    )


def merge(
    rule: str,
    scores: Scores,
    proposals: Proposals,
    names: Sequence[str],
    settings: MergeSettings,
    *,
    ensemble: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Merged:
    """Decide by the named rule: "default", "benchmark" or "published-demo".

    Args:
        rule: which one.
        scores: from the classifier.
        proposals: what was scored.
        names: the typed names.
        settings: numbers of the default rule.
        ensemble: share of CLIP beside a segmenter that names its own masks (published rules); 0 = CLIP alone.
        size: height and width of the photo. The published rules decide soft masks at this size; all else is
            decided at the size of the proposals.

    Raises:
        SettingsError: an ensemble is asked for with another rule, or there is nothing to mix CLIP with.
    """
    if rule == "default":
        if ensemble > 0:
            raise SettingsError(
                f"An ensemble of {ensemble} belongs to the published rules: set the merge rule to benchmark "
                "or published-demo, or the ensemble to 0."
            )
        return merge_default(scores, proposals, settings)
    return _merge_as_published(cast(PublishedRule, rule), scores, proposals, names, ensemble, size)


def _merge_as_published(
    rule: PublishedRule,
    scores: Scores,
    proposals: Proposals,
    names: Sequence[str],
    ensemble: float,
    size: tuple[int, int] | None,
) -> Merged:
    """Hard masks of a proposer, or all the soft ones of a segmenter with its own opinion of them."""
    count, queries = len(names), proposals.queries
    columns = np.arange(count + (rule == "published-demo" and len(demo_names(names)) > count))
    clip = np.concatenate([scores.typed, scores.others[:, None]], axis=1)[:, columns]
    if queries is None:
        masks, index, size = torch.from_numpy(proposals.masks), np.arange(len(proposals)), None
    else:
        masks, index = queries.soft_masks(), queries.index
    segmenter = None
    if ensemble > 0:
        if scores.queries is None:
            raise SettingsError(
                f"An ensemble of {ensemble} mixes CLIP with a segmenter that names its own masks in the same "
                "text space, which this proposer does not: set the ensemble to 0, or choose maskformer with "
                "the model it was trained with."
            )
        segmenter = torch.from_numpy(scores.queries[:, [*columns, -1]])
    maps = merge_published(
        rule,
        names,
        masks,
        torch.from_numpy(clip),
        torch.from_numpy(index),
        segmenter_logits=segmenter,
        weight=ensemble,
        mask_threshold=queries.mask_threshold if queries else DEMO_MASK_THRESHOLD,
        size=size,
    )
    # From numbers of masks to numbers of proposals; a mask without a pixel is no proposal.
    number = np.zeros(len(masks) + 1, dtype=np.uint16)
    number[index + 1] = np.arange(1, len(proposals) + 1)
    region_map = number[maps.region_map]
    own = maps.probabilities[index, :count]
    region_class = np.zeros(len(proposals), dtype=np.int64)
    if len(proposals):
        region_class = np.where(np.isin(np.arange(len(proposals)) + 1, region_map), own.argmax(1) + 1, 0)
    return Merged(
        label_map=maps.label_map,
        region_map=region_map,
        region_class=region_class,
        region_confidence=own.max(axis=1, initial=0.0),
        found=np.isin(np.arange(1, count + 1), maps.label_map),
        confidence=own.max(axis=0, initial=0.0),
        probabilities=own,
    )


def merge_default(scores: Scores, proposals: Proposals, settings: MergeSettings | None = None) -> Merged:
    """The default rule.

    1. A class is *found* if the evidence of its best region and of the whole photo is strong enough.
    2. Each region takes its most probable found class, or none if hidden names outweigh it too much. The best
       region of a found class is lost neither to hidden names nor, as a rule, to other words.
    3. Each pixel belongs to the covering region of the most support:
       support = probability x quality^a x area_fraction^-b. Regions that nothing claims take no pixels.
    """
    settings = settings or MergeSettings()
    evidence = presence_evidence(scores, settings)
    found = evidence > 0
    region_class = np.zeros(len(proposals), dtype=np.int64)
    region_confidence = np.zeros(len(proposals), dtype=np.float32)
    if found.any() and len(proposals):
        odds = np.where(found, log_odds(scores.typed, scores.hidden), -np.inf) + settings.claim_bias
        best = _best_words(odds + settings.presence_weight * evidence, found)
        odds_of_best = np.take_along_axis(odds, best[:, None], axis=1)[:, 0].astype(np.float32)
        claimed = odds_of_best > 0
        for c in np.flatnonzero(found):
            own = np.where(best == c, odds[:, c], -np.inf)
            claimed[own.argmax()] |= bool(np.isfinite(own.max()))
        region_class = np.where(claimed, best + 1, 0)
        region_confidence = _sigmoid(odds_of_best)
    label_map, region_map = paint(proposals, region_class, region_confidence, settings)
    # A class that ends up without a pixel was outdone everywhere: it is not shown as found.
    present = np.isin(np.arange(1, len(found) + 1), label_map)
    return Merged(
        label_map=label_map,
        region_map=region_map,
        region_class=region_class,
        region_confidence=region_confidence,
        found=found & present,
        confidence=_sigmoid(evidence),
        probabilities=probabilities(scores.typed, scores.hidden),
    )


def _best_words(choice: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.int64]:
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


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)


def paint(
    proposals: Proposals,
    region_class: NDArray[np.int64],
    region_confidence: NDArray[np.float32],
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
