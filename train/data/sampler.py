"""Which pairs a step sees."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Sampler(Protocol):
    """Says which pairs a step sees."""

    def rows(self, step: int) -> Rows:
        """The pairs of a step, counted from 0."""


class PairSampler:
    """Draws the pairs of a step, over all processes; depends on its numbers and the step alone.

    Every epoch is a new shuffle in which a noun has at most `most_per_noun` pairs, so that frequent nouns
    such as "man" and "dog" do not dominate.

    Args:
        noun_of: (P,) noun of each pair; of several names the natural one.
        batch: pairs of a step.
        most_per_noun: pairs of one noun in an epoch.
        seed: of the shuffles.
    """

    def __init__(self, noun_of: Rows, *, batch: int, most_per_noun: int, seed: int) -> None:
        self.noun_of, self.batch, self.most_per_noun, self.seed = noun_of, batch, most_per_noun, seed
        self.per_epoch = int(np.minimum(np.bincount(noun_of), most_per_noun).sum())
        self.steps_per_epoch = max(self.per_epoch // batch, 1)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def steps(self, epochs: float) -> int:
        """Steps of so many epochs, at least one."""
        return max(round(epochs * (self.per_epoch // self.batch or self.per_epoch / self.batch)), 1)

    def rows(self, step: int) -> Rows:
        """The pairs of a step, counted from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        kept = self._epoch(epoch)
        if len(kept) < self.batch:  # fewer pairs than a batch: some come twice
            return np.random.default_rng([self.seed, epoch, 1]).choice(kept, self.batch)
        return kept[number * self.batch : (number + 1) * self.batch]

    def _shuffled(self, epoch: int) -> Rows:
        """The pairs of an epoch in its order, without those over the cap."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.noun_of))
        nouns = self.noun_of[order]
        by_noun = np.argsort(nouns, kind="stable")
        starts = np.searchsorted(nouns[by_noun], nouns[by_noun])
        rank = np.empty(len(order), dtype=np.int64)  # how many of the same noun came before
        rank[by_noun] = np.arange(len(order)) - starts
        return order[rank < self.most_per_noun]
