"""What examples say about regions: a term that is added to the log-odds of names.

Most examples are named right without them. What an example teaches is what its name lacks: by how much its
log-odds fall short of the best other name's, and of those of the hidden names together, which are 0.

    lack_i      = clip(max(0, max_c'!=c o_ic') + margin - o_ic, 0, most)
    k_ri        = exp((cos(r, i) - 1) / width)
    evidence_rc = sum over examples i of class c of k_ri lack_i / (doubt + sum over all i of k_ri)

with c the name of example i, o its log-odds without a memory, r the feature of a region. Names that the
model knows lack little, so that examples of them change little; a person's own words lack much. No evidence
is larger than the largest lack, it is nearly 0 where no example is near, and one wrong example among right
ones is outvoted by them, since they have a say even where they lack nothing.
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
    doubt: float = 0.1
    """What speaks against all examples together."""
    margin: float = 1.0
    """Log-odds by which the name of an example should be ahead of the others."""
    most: float = 15.0
    """Most that one example may lack."""
    near: float = 0.75
    """Cosine from which people are told that two regions are alike."""


def memory_evidence(
    regions: Floats, examples: Floats, lacks: Floats, settings: MemorySettings | None = None
) -> Floats:
    """Evidence of examples for each region and class, (R, C) float32 in 0..`settings.most`.

    Args:
        regions: (R, D) unit vectors.
        examples: (N, D) unit vectors.
        lacks: (N, C) from `lacks_of`.
        settings: the formula's numbers.
    """
    settings = settings or MemorySettings()
    if not len(examples) or not len(regions):
        return np.zeros((len(regions), lacks.shape[1]), dtype=np.float32)
    say = np.exp((regions @ examples.T - 1) / np.float32(settings.width))
    total = np.float32(settings.doubt) + say.sum(axis=1, keepdims=True)
    return np.asarray((say @ lacks) / total, dtype=np.float32)


def lacks_of(odds: Floats, owners: npt.NDArray[np.int64], settings: MemorySettings | None = None) -> Floats:
    """What the name of each example lacks, (N, C) float32, 0 but in the column of its name.

    Args:
        odds: (N, C) log-odds of the classes for each example without a memory.
        owners: (N,) class of each example from 0, or -1 for a name that was not asked for (no effect).
        settings: the formula's numbers.
    """
    settings = settings or MemorySettings()
    lacks = np.zeros(odds.shape, dtype=np.float32)
    asked = np.flatnonzero(owners >= 0)
    own = odds[asked, owners[asked]]
    others = odds[asked].copy()
    others[np.arange(len(asked)), owners[asked]] = -np.inf
    best = others.max(axis=1, initial=0.0)
    lacks[asked, owners[asked]] = np.clip(best + settings.margin - own, 0, settings.most)
    return lacks


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
