"""What examples say about regions: a term that is added to the log-odds of names.

    evidence_rc = min(cap, log(1 + sum over examples i of class c of exp((cos(r, i) - near) / width)))

with r the feature of the region and i that of an example. It is 0 where no example is near, grows by one for
each `width` that the nearest example comes closer, and by log 2 for a second one as near: alike regions get
the name, a photo without any stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ovseg_demo.memory.examples import Memory
from ovseg_demo.result import Arm, Segmentation

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MemorySettings:
    """The numbers of the formula."""

    near: float = 0.75
    """Cosine at which one example counts log 2."""
    width: float = 0.05
    """Difference of cosines that counts one more."""
    cap: float = 6.0
    """Most that the examples of one class count."""


def memory_evidence(
    regions: Floats, examples: Floats, owners: Sequence[int], classes: int, settings: MemorySettings
) -> Floats:
    """Evidence of examples for each region and class, (R, C) float32 in 0..`settings.cap`.

    Args:
        regions: (R, D) unit vectors.
        examples: (N, D) unit vectors.
        owners: N class indices from 0; -1 = a class that nobody asks for.
        classes: C, how many there are.
        settings: the formula's numbers.
    """
    evidence = np.zeros((len(regions), classes), dtype=np.float32)
    owned = np.asarray(owners, dtype=np.int64)
    asked = np.flatnonzero(owned >= 0)
    if not len(asked) or not len(regions):
        return evidence
    alike = (regions @ examples[asked].T - settings.near) / settings.width
    np.add.at(evidence.T, owned[asked], np.exp(np.minimum(alike, 30)).T)
    return np.asarray(np.minimum(np.log1p(evidence), settings.cap), dtype=np.float32)


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
