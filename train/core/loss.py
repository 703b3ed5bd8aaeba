"""Loss of region-noun pairs where a region may have several right names.

A region's names are told as rows of the noun bank, filled up with -1, so that batches of any mixture stack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_RARE = 1e-6
"""Added to frequencies, so that names without a pair have a logarithm."""


def row_mask(rows: Tensor, count: int) -> Tensor:
    """(n, R) rows of the bank, -1 = none -> (n, count) bool, True at those rows."""
    marked = torch.zeros(len(rows), count + 1, dtype=torch.bool, device=rows.device)
    marked.scatter_(1, rows.where(rows >= 0, torch.full_like(rows, count)), True)
    return marked[:, :count]


def name_prior(right: Tensor, count: int, weight: float) -> Tensor:
    """What is added to the logits in training, so that frequent names need not be preferred by the features.

    Args:
        right: (P, R) rows of each pair's right names, -1 = none; the names of a pair share its count.
        count: size M of the bank.
        weight: 0 = no adjustment, 1 = the whole log frequency (Menon et al., 2021).

    Returns:
        (M,) float32.
    """
    kept = right >= 0
    shares = kept / kept.sum(1, keepdim=True).clamp(min=1)
    frequency = torch.zeros(count, dtype=torch.float64)
    frequency.index_add_(0, right[kept], shares[kept].double())
    return (weight * (frequency / frequency.sum().clamp(min=1) + _RARE).log()).float()


def name_loss(logits: Tensor, right: Tensor, ignored: Tensor) -> Tensor:
    """Negative log probability of each region's right names together.

    Args:
        logits: (B, M), with the prior of the names where there is one.
        right: (B, M) bool, at least one True a row: any of these names is right.
        ignored: (B, M) bool: names that are neither right nor wrong; a right name counts all the same.

    Returns:
        (B,).
    """
    every = logits.masked_fill(ignored & ~right, -torch.inf).logsumexp(1)
    return every - logits.masked_fill(~right, -torch.inf).logsumexp(1)


def photo_loss(logits: Tensor, right: Tensor, ignored: Tensor, sizes: Sequence[int]) -> Tensor:
    """Regions and names of each photo against each other, in both directions.

    The page asks the same: which of the typed words is this region, and which of the regions is this word?
    Each region is compared with the names that regions of its photo have, and each of these names with the
    regions of the photo.

    Args:
        logits: (B, M), without a prior: frequent names are no likelier within a photo.
        right: (B, M) bool, at least one True a row.
        ignored: (B, M) bool: names that are neither right nor wrong for a region.
        sizes: how many rows each photo has, one photo after the other; B together.

    Returns:
        Mean over the B regions of both losses; a photo's names count as much as its regions. A photo of one
        region has nothing to tell apart and counts 0.
    """
    total = logits.new_zeros(())
    parts = zip(logits.split(list(sizes)), right.split(list(sizes)), ignored.split(list(sizes)), strict=True)
    for some, names, neither in parts:
        if len(some) < 2:
            continue
        here = names.any(0)
        own, names, neither = some[:, here], names[:, here], neither[:, here]
        names_of_regions = name_loss(own, names, neither)
        regions_of_names = name_loss(own.T, names.T, neither.T)
        total = total + names_of_regions.sum() + len(some) * regions_of_names.mean()
    return total / len(logits)


def pair_loss(
    image: Tensor,
    text: Tensor,
    right: Tensor,
    log_scale: Tensor,
    ignored: Tensor | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """Loss of a batch: each region over the bank; where one name is right, also that name over the regions.

    The text side ranks the regions of the batch for a noun. Only pairs with a single name take part,
    since a region with synonyms may be right for nouns that it does not list. Pairs with the same noun are
    all right answers, never each other's negatives.

    Args:
        image: (B, D) unit vectors.
        text: (M, D) unit vectors of the bank.
        right: (B, R) rows of the right names, -1 = none; every pair has one at least.
        log_scale: logarithm of the temperature's inverse.
        ignored: (B, I) rows of names on neither side, -1 = none.
        prior: (M,) added to the logits over the bank.
    """
    logits = log_scale.exp() * image @ text.T
    names = row_mask(right, len(text))
    neither = torch.zeros_like(names) if ignored is None else row_mask(ignored, len(text))
    to_text = name_loss(logits if prior is None else logits + prior, names, neither)
    single = (names.sum(1) == 1) & ~neither.any(1)
    if not single.any():
        return to_text.mean()
    nouns = names[single].float().argmax(1)
    same = (nouns[:, None] == nouns[None, :]).float()
    to_image = functional.cross_entropy(logits[single][:, nouns].T, same / same.sum(1, keepdim=True))
    # A pair that both sides know counts as the mean of the two.
    share = single.float().mean()
    return to_text.mean() + share * (to_image - to_text[single].mean()) / 2
