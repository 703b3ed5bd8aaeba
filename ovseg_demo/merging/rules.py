"""From region scores to a label map, by one of three rules: the default one and the two published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from ovseg_demo.errors import SettingsError
from ovseg_demo.merging.default_rule import Merged, merge_default
from ovseg_demo.merging.evidence import LONG_LIST, MergeSettings, Scores
from ovseg_demo.merging.published_rules import DEMO_MASK_THRESHOLD, PublishedRule, demo_names, merge_published
from ovseg_demo.proposals.base import Proposals


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
        settings: numbers of the default rule, and the photo's weight in the published ones.
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
    weight = settings.photo_weight if len(names) > LONG_LIST else 0.0
    if weight:
        # Few words of a long list are there, and the published rules do not ask which.
        scores = replace(scores, typed=scores.typed + np.float32(weight) * scores.photo_typed)
    return _merge_as_published(cast(PublishedRule, rule), scores, proposals, names, ensemble, size)


def _merge_as_published(
    rule: PublishedRule,
    scores: Scores,
    proposals: Proposals,
    names: Sequence[str],
    ensemble: float,
    size: tuple[int, int] | None,
) -> Merged:
    """Hard masks of a proposer, or all the soft ones of a segmenter that classifies them itself."""
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
        closest_hidden=("",) * len(proposals),
    )
