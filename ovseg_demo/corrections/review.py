"""Which regions of a batch a person should look at first.

    doubt = weight of what speaks for a mistake x square root of the region's share of the photo

Three things speak for a mistake: the arms give it different names, its first two names are nearly as likely,
or it is near to a remembered example of another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovseg_demo.result import RegionResult, Segmentation
from ovseg_demo.vocabulary import fold

DISAGREEMENT, SMALL_MARGIN, UNLIKE_EXAMPLE = 1.0, 1.0, 1.5
"""What each of the three counts."""
NEAR = 0.75
"""An example counts from this cosine on; `MemorySettings.near` of the default arm."""


@dataclass(frozen=True)
class Doubt:
    """A region that may be wrong."""

    photo: str
    """Key of the photo in the batch."""
    region_id: int
    name: str
    """What the main arm calls it; "" = nothing claims it."""
    doubt: float
    """0 and up; comparable within a batch."""
    reasons: tuple[str, ...]
    """Sentences for people."""


def review_order(
    results: Mapping[str, Sequence[Segmentation]], *, least_area: float = 0.005
) -> tuple[Doubt, ...]:
    """The regions of a batch, the most doubtful first; corrected and accepted ones are left out.

    Args:
        results: for each photo the results of its arms, the main one last.
        least_area: regions that decide a smaller share of the photo are left out.
    """
    found = [
        doubt
        for photo, arms in results.items()
        if arms
        for region in arms[-1].regions
        if not region.corrected and region.area_fraction >= least_area
        if (doubt := _doubt(photo, region, arms)) is not None
    ]
    return tuple(sorted(found, key=lambda one: (-one.doubt, one.photo, one.region_id)))


def _doubt(photo: str, region: RegionResult, arms: Sequence[Segmentation]) -> Doubt | None:
    main = arms[-1]
    name = _name(main, region)
    weight, reasons = 0.0, []
    others = []
    for arm in arms[:-1]:
        theirs = next((one for one in arm.regions if one.id == region.id), None)
        if theirs is not None and _name(arm, theirs) != name:
            others.append(f"{arm.arm} says {_name(arm, theirs) or 'none of the words'}")
    if others:
        weight += DISAGREEMENT * len(others) / max(1, len(arms) - 1)
        reasons.append(f"{main.arm} says {name or 'none of the words'}, {', '.join(others)}.")
    if name and len(region.top) > 1:
        margin = region.top[0][1] - region.top[1][1]
        weight += SMALL_MARGIN * max(0.0, 1 - 2 * margin)
        if margin < 0.25:
            reasons.append(f"{region.top[0][0]} and {region.top[1][0]} are nearly as likely.")
    if region.nearest_example is not None:
        example, alike = region.nearest_example
        if alike >= NEAR and fold(example) != fold(name):
            weight += UNLIKE_EXAMPLE * (alike - NEAR) / (1 - NEAR)
            reasons.append(f"It looks like a remembered {example}.")
    if not weight:
        return None
    return Doubt(photo, region.id, name, weight * region.area_fraction**0.5, tuple(reasons))


def _name(seg: Segmentation, region: RegionResult) -> str:
    return seg.classes[region.class_index - 1].name if region.class_index else ""
