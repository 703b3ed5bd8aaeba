"""A map of words and regions in two dimensions of the space that they share.

In CLIP every region is far from every word, and only differences carry meaning (the modality gap). Regions
are therefore centred on the mean of all regions and words on the mean of all words. The two directions are
the principal ones of both together, words and regions weighted equally. They are the same for all arms, so
that the map shows how a region moves from one arm to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.result import Arm

__all__ = ["SharedSpace", "project"]

Floats = NDArray[np.float32]
_SAME = 1e-3


@dataclass(frozen=True)
class SharedSpace:
    """Points on the map."""

    regions: Mapping[Arm, Floats]
    """(R, 2) by arm, in the order of the features."""
    words: Floats
    """(C, 2)"""
    regions_kept: float
    """Share of the regions' variance that the two directions keep, 0..1."""
    words_kept: float
    """The same of the words'; 1 if there is one word."""
    words_moved: bool
    """The arms embed words differently; they are drawn as the last arm does."""


def project(regions: Mapping[Arm, Floats], words: Mapping[Arm, Floats]) -> SharedSpace:
    """Find the map and place everything on it.

    Args:
        regions: (R, D) unit vectors by arm, the same regions in the same order.
        words: (C, D) unit vectors by arm.

    Raises:
        ValueError: the arms have spaces of different width, or there is nothing to place.
    """
    arms = list(regions)
    widths = {rows.shape[1] for rows in (*regions.values(), *words.values())}
    if len(widths) != 1:
        raise ValueError(f"The arms {', '.join(arms)} have spaces of widths {sorted(widths)}.")
    every = np.concatenate([regions[arm] for arm in arms]).astype(np.float64)
    named = words[arms[-1]].astype(np.float64)
    if not len(every) or not len(named):
        raise ValueError("A map needs at least one region and one word.")
    middle, middle_of_words = every.mean(axis=0), named.mean(axis=0)
    moved, moved_words = every - middle, named - middle_of_words
    weighted = [rows / max(float(np.linalg.norm(rows)), 1e-12) for rows in (moved, moved_words)]
    _, _, directions = np.linalg.svd(np.concatenate(weighted), full_matrices=False)
    axes = np.zeros((2, every.shape[1]))
    axes[: len(directions[:2])] = directions[:2]
    # A direction has no sign of its own: the largest part is positive, so that the same photo looks the same.
    for axis in axes:
        axis *= np.sign(axis[np.abs(axis).argmax()]) or 1.0
    points = (moved @ axes.T).astype(np.float32)
    count = len(regions[arms[0]])
    return SharedSpace(
        regions={arm: points[i * count : (i + 1) * count] for i, arm in enumerate(arms)},
        words=(moved_words @ axes.T).astype(np.float32),
        regions_kept=_kept(moved, axes),
        words_kept=_kept(moved_words, axes),
        words_moved=any(float(np.abs(words[arm] - words[arms[-1]]).max()) > _SAME for arm in arms),
    )


def _kept(rows: NDArray[np.float64], axes: NDArray[np.float64]) -> float:
    total = float((rows**2).sum())
    return float(((rows @ axes.T) ** 2).sum()) / total if total > 1e-12 else 1.0
