"""Regions without a noun, which are most regions of a photo and most of its background.

A noun is paired with one region, so sky, grass and road are in few pairs, and things that captions omit in
none. Captions also limit what such a region can show: one of the photo's nouns, unless another region matches
that noun far better, or background that no caption mentions. `train/data/pseudo_labels.py` turns this into
labels.
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
    """At most so many a photo with captions; large regions are more likely to be drawn."""
    least_area: float = 0.015
    """Fraction of the photo; smaller regions are no background."""
    worse: float = 0.1
    """A noun is ruled out if its cosine is higher by more than this at the photo's best region for it."""


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
