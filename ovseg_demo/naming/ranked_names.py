"""The best names of a region, typed or not, with their confidence, for a person to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.merging import MergeSettings, Scores
from ovseg_demo.merging.default_rule import shares_of_claims
from ovseg_demo.merging.evidence import log_odds

MOST = 5
"""How many names a region is offered."""


@dataclass(frozen=True)
class RankedName:
    """One name that a region may have."""

    name: str
    confidence: float
    """Probability that it is right, 0..1, calibrated as the default merge rule's are."""
    typed: bool
    """Whether it is among the words that were asked for; the others are common names."""


def ranked_names(
    scores: Scores, names: tuple[str, ...], settings: MergeSettings
) -> tuple[tuple[RankedName, ...], ...]:
    """The five best names of each region, best first.

    Typed and hidden names share one probability. Where a typed name is likely enough to claim the region, its
    confidence is that of the default rule.

    Args:
        scores: of R regions.
        names: the C typed names.
        settings: the numbers of the arm.
    """
    count, everything = len(names), (*names, *scores.hidden_names)
    logits = np.concatenate(
        [
            settings.logit_scale * scores.typed,
            settings.logit_scale * scores.hidden + np.float32(settings.hidden_bias),
        ],
        axis=1,
    )
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)
    if count and len(shares):
        odds = log_odds(scores.typed, scores.hidden, settings)
        claims = odds.max(axis=1) > settings.claim_threshold
        region_class: NDArray[np.int64] = np.where(claims, odds.argmax(axis=1) + 1, 0)
        shares = shares_of_claims(shares, region_class, settings)
    ranked = []
    for row in shares:
        best = np.argsort(-row, kind="stable")[:MOST]
        ranked.append(tuple(RankedName(everything[i], float(row[i]), bool(i < count)) for i in best))
    return tuple(ranked)
