"""Labels for regions without a noun, from vanilla's predictions among the names that the captions allow.

A region shows one of the nouns that its photo's captions leave open for it
(`train/mining/unlabeled_regions.py`), or background that captions seldom mention. What vanilla thinks of the
masked region, restricted to these, is a better label than what it thinks without them: grass is no dog where
another region is the dog, and open water is no bird where no caption mentions one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.vocabulary import Vocabulary

MENTIONED = 1.3
"""Added to the logits of the nouns in the photo's captions, which are likelier than others."""
SHARPER = 1.6
"""Logits are multiplied by this: with most competing names excluded, probabilities may be sharper."""
USUAL = 0.7
"""Share of a name's mean level that is subtracted from its logits."""
SAME = 0.6
"""Nouns whose vectors are closer than this mean the same."""
_THINGS = 80  # of the names of COCO's panoptic classes; the others are stuff


@lru_cache(maxsize=1)
def background() -> frozenset[str]:
    """The stuff of COCO: sky, grass, wall ..."""
    return frozenset(item.name for item in list(Vocabulary.preset("coco-133"))[_THINGS:])


def allowed_names(
    bank: Sequence[str], text: Tensor, candidate_nouns: Sequence[Sequence[str]]
) -> tuple[Tensor, Tensor]:
    """Which names of the bank each region may show, and which of them its photo's captions mention.

    Args:
        bank: M names.
        text: (M, D) their unit vectors.
        candidate_nouns: per region the nouns that its photo leaves open for it.

    Returns:
        (n, M) bool and (n, M) bool. A noun allows all names that mean the same.
    """
    rows = {name: row for row, name in enumerate(bank)}
    alike = text @ text.T > SAME
    stuff = torch.tensor([name in background() for name in bank])
    mentioned = torch.zeros(len(candidate_nouns), len(bank), dtype=torch.bool)
    similar = torch.zeros_like(mentioned)
    for region, nouns in enumerate(candidate_nouns):
        words = {word for noun in nouns for word in (noun, noun.split()[-1])}
        own = [rows[word] for word in sorted(words) if word in rows]
        mentioned[region, own] = True
        similar[region] = alike[own].any(dim=0)
    return mentioned | similar | stuff, mentioned


def pseudo_labels(features: Tensor, scale: float, text: Tensor, allowed: Tensor, mentioned: Tensor) -> Tensor:
    """Distributions over the bank, 0 for what is not allowed.

    Args:
        features: (n, D) unit vectors, vanilla's of the masked regions.
        scale: a cosine times this is a logit.
        text: (M, D) unit vectors of the bank.
        allowed, mentioned: (n, M) from `allowed_names`.

    Returns:
        (n, M) float16; rows sum to 1, but for those that nothing is allowed for, which are 0.
    """
    logits = scale * features @ text.T
    usual = logits.logsumexp(dim=0) - np.log(max(len(logits), 1))
    logits = SHARPER * (logits - USUAL * usual) + MENTIONED * mentioned
    labels: Tensor = logits.masked_fill(~allowed, -torch.inf).softmax(dim=-1).nan_to_num(0.0)
    return labels.half()
