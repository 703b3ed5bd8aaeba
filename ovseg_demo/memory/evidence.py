"""What examples say about regions: a term that is added to the log-odds of names.

Most examples are named right without them. What an example teaches is its residual: 1 for its name and 0 for
every other, less the probability that each name has for it without a memory. Regions take over the residuals
of the examples that they resemble:

    k_ri        = exp((cos(r, i) - 1) / width)
    evidence_rc = weight * sum_i k_ri (y_ic - p_ic) / (doubt + sum_i k_ri)

with r the feature of a region, i that of an example, y its name and p its probabilities. It lies between
-weight and weight and is nearly 0 where no example is near. One example alone counts k / (doubt + k) of
`weight`, three alike count three times as much in both places, and one wrong example among right ones is
outvoted by them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ovseg_demo.memory.examples import Memory
from ovseg_demo.result import Arm, Segmentation

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MemorySettings:
    """The numbers of the formula."""

    width: float = 0.1
    """Difference of cosines by which an example loses a factor e of its say."""
    doubt: float = 0.3
    """What speaks against all examples together."""
    weight: float = 4.0
    """Most that examples add to the log-odds of a name."""
    near: float = 0.75
    """Cosine from which people are told that two regions are alike."""


def memory_evidence(
    regions: Floats, examples: Floats, residuals: Floats, settings: MemorySettings | None = None
) -> Floats:
    """Evidence of examples for each region and class, (R, C) float32 between -weight and weight.

    Args:
        regions: (R, D) unit vectors.
        examples: (N, D) unit vectors.
        residuals: (N, C) from `residuals_of`.
        settings: the formula's numbers.
    """
    settings = settings or MemorySettings()
    if not len(examples) or not len(regions):
        return np.zeros((len(regions), residuals.shape[1]), dtype=np.float32)
    say = np.exp((regions @ examples.T - 1) / np.float32(settings.width))
    total = np.float32(settings.doubt) + say.sum(axis=1, keepdims=True)
    return np.asarray(np.float32(settings.weight) * (say @ residuals) / total, dtype=np.float32)


def residuals_of(shares: Floats, owners: npt.NDArray[np.int64]) -> Floats:
    """What each example teaches: its name, less what was believed without it; (N, C) float32.

    Args:
        shares: (N, C) probabilities of the classes for each example without a memory.
        owners: (N,) class of each example from 0, or -1: a name that nobody asks for teaches nothing.
    """
    residuals = np.asarray(-shares, dtype=np.float32).copy()
    asked = np.flatnonzero(owners >= 0)
    residuals[asked, owners[asked]] += 1
    residuals[owners < 0] = 0
    return residuals


def with_nearest_examples(
    seg: Segmentation, regions: Floats, arm: Arm, memory: Memory | None
) -> Segmentation:
    """A result whose regions tell the example that is most alike.

    Args:
        seg: of R proposals, without corrections.
        regions: (R, D) unit vectors.
        arm: that they are of.
        memory: the examples; None or an empty one changes nothing.
    """
    if memory is None or not len(memory) or not len(regions):
        return seg
    alike = regions @ memory.features(arm).T
    nearest = alike.argmax(axis=1)
    told = tuple(
        replace(region, nearest_example=(memory.examples[n].name, float(row[n])))
        for region, n, row in zip(seg.regions, nearest, alike, strict=True)
    )
    return replace(seg, regions=told)
