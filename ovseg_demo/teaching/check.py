"""Whether what was learned helps: regions that were kept out, before and after, paired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ovseg_demo.teaching.crops import Lessons

CHANCE = 0.1
"""Prompts are refused if so many more hits come about by chance with a higher probability."""
MOST_MOVED = 0.1
"""Prompts are refused if more of the other places change to a corrected name."""


@dataclass(frozen=True)
class Check:
    """What prompts that had not seen a region make of it, over all regions.

    Attributes:
        regions: how many were kept out, each once.
        right_before: of them, named right by the prompts of the model.
        gained: named right only afterwards.
        lost: named right only before.
        places: other places of the photos that should stay what they are.
        moved: share of them that change to a corrected name.
    """

    regions: int
    right_before: int
    gained: int
    lost: int
    places: int
    moved: float

    @classmethod
    def of(cls, before: Tensor, after: Tensor, lessons: Lessons) -> Check:
        """From (N, M) logits before and after."""
        named, kept_as_is = lessons.named, undisputed(before, lessons)
        was, now = before.argmax(dim=1), after.argmax(dim=1)
        right, right_now = (said[named] == lessons.rows[named] for said in (was, now))
        moved = ((was != now) & (now < len(lessons.names)))[kept_as_is]
        return cls(
            int(named.sum()),
            int(right.sum()),
            int((right_now & ~right).sum()),
            int((right & ~right_now).sum()),
            len(moved),
            float(moved.float().mean()) if len(moved) else 0.0,
        )

    @property
    def right_after(self) -> int:
        """Of the regions, named right afterwards."""
        return self.right_before + self.gained - self.lost

    @property
    def chance(self) -> float:
        """Probability of at least so many hits among the changes if a hit were as likely as a miss."""
        changes = self.gained + self.lost
        return sum(math.comb(changes, hits) for hits in range(self.gained, changes + 1)) * 0.5**changes

    @property
    def helps(self) -> bool:
        """Whether the prompts are worth having."""
        return self.gained > self.lost and self.chance <= CHANCE and self.moved <= MOST_MOVED

    @property
    def facts(self) -> dict[str, Any]:
        """For the file and for people."""
        return {
            "kept_out": self.regions,
            "right_before": self.right_before,
            "right_after": self.right_after,
            "gained": self.gained,
            "lost": self.lost,
            "chance": round(self.chance, 4),
            "moved": round(self.moved, 4),
        }

    @property
    def told(self) -> str:
        """For people, as a part of a sentence."""
        why = ""
        if self.gained > self.lost and self.chance > CHANCE:
            why = f", which chance alone does in {100 * self.chance:.0f} of 100 cases"
        elif self.moved > MOST_MOVED:
            why = f", and {100 * self.moved:.0f} % of other places are taken for one of the names"
        return (
            f"of {self.regions} regions, each named by prompts that had not seen it, {self.right_before} are "
            f"right before and {self.right_after} after{why}"
        )


def undisputed(before: Tensor, lessons: Lessons) -> Tensor:
    """(N,) bool, the other places that should stay what they are.

    One that bears a name which was corrected elsewhere may be mistaken in the same way.
    """
    was, named = before.argmax(dim=1), lessons.named
    disputed = was[named & (was != lessons.rows)]
    return ~named & ~torch.isin(was, disputed)
