"""Regions that no noun was given to: most of a photo, and most of its stuff.

A noun goes to one region, so sky, grass and road come to few pairs, and what captions leave out to none. But
captions also say what a region cannot be. A region may show one of its photo's nouns, unless another region
shows that noun far better, or background that nobody mentions. `train/data/pseudo_labels.py` makes labels of
that.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from train.mining.pairing import Lexicon, PhotoView


@dataclass(frozen=True)
class UnlabeledRules:
    """Which regions without a noun are kept, and which nouns they may show."""

    per_photo: int = 0
    """At most so many, of photos with captions; large ones are likelier to be drawn."""
    least_area: float = 0.015
    """Fraction of the photo; what is smaller is no background."""
    worse: float = 0.1
    """A noun whose cosine at the photo's best region for it is higher by more than this is ruled out."""


@dataclass(frozen=True)
class UnlabeledRegion:
    """A region without a noun."""

    region: int
    """Row among the photo's regions."""
    candidate_nouns: tuple[str, ...]
    """Those of the photo's nouns that it may show."""


def select_unlabeled(
    view: PhotoView,
    nouns: Sequence[str],
    lexicon: Lexicon,
    named: Collection[int],
    rules: UnlabeledRules,
    photo: str,
) -> list[UnlabeledRegion]:
    """Some of the regions that have no noun, the same ones for the same photo.

    Args:
        view: the photo's regions.
        nouns: of the photo's captions.
        lexicon: all nouns.
        named: rows of the regions that have a noun.
        rules: which and how many.
        photo: its id, which the draw depends on.
    """
    large = view.area >= rules.least_area
    free = np.array([row for row in np.flatnonzero(large) if row not in named], dtype=np.int64)
    if not len(free) or not nouns:
        return []
    rng = np.random.default_rng(zlib.crc32(photo.encode()))
    likely = np.sqrt(view.area[free])
    count = min(rules.per_photo, len(free))
    drawn = np.sort(rng.choice(free, count, replace=False, p=likely / likely.sum()))
    cosine = view.features @ lexicon.features[[lexicon.rows[noun] for noun in nouns]].T
    near = cosine >= cosine.max(axis=0) - rules.worse
    return [
        UnlabeledRegion(int(row), tuple(noun for noun, ok in zip(nouns, near[row], strict=True) if ok))
        for row in drawn
    ]
