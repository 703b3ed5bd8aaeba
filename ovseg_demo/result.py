"""What a segmentation is: one object in which names, colours, masks and scores travel together.

Page, command line, exports and tests all read these dataclasses, so a legend cannot drift from its picture.
Everything is checked once (`ValueError`: a wrong result is a programmer's error, not
a user's); code that receives one need not check it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Arm = str
"""Name of what classifies, one of `ovseg_demo.models.ARMS`; with "@MODEL" if it is another model's."""
Colour = tuple[int, int, int]

UNASSIGNED = 0
"""Value of `label_map` where no word fits, and class index of a region that nothing claims."""


@dataclass(frozen=True)
class ClassResult:
    """One typed class, whether the photo has it or not."""

    name: str
    """The name as typed; any characters."""
    synonyms: tuple[str, ...]
    """All names scored as this class; the first one is `name`."""
    index: int
    """1-based place in the vocabulary: the value of this class in `label_map`."""
    colour: Colour
    """Red, green, blue in 0..255; the same for the same name in every result."""
    found: bool
    """False: the word was asked for, and nothing in the photo fits it."""
    area_fraction: float
    """Share of the photo's pixels, 0..1."""
    confidence: float
    """Probability that the photo shows the class, 0..1, calibrated where the rule is the default one; 0.6 at
    most where its largest piece is a speck."""

    def __post_init__(self) -> None:
        _require(bool(self.name), "a class needs a name")
        _require(self.synonyms[:1] == (self.name,), f"{self.name!r} must lead its synonyms")
        _require(self.index >= 1, f"class indices count from 1, got {self.index}")
        is_colour = len(self.colour) == 3 and all(0 <= c <= 255 for c in self.colour)
        _require(is_colour, f"not a colour: {self.colour}")
        _require_fraction("area_fraction", self.area_fraction)
        _require_fraction("confidence", self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain types only, in the order people read them."""
        return {
            "index": self.index,
            "name": self.name,
            "synonyms": list(self.synonyms),
            "colour": list(self.colour),
            "found": self.found,
            "area_fraction": _short(self.area_fraction),
            "confidence": _short(self.confidence),
        }


@dataclass(frozen=True)
class RegionResult:
    """One proposal and what the classifier made of it."""

    id: int
    """1-based number of the proposal, the same in all arms; in `region_map` where the region decided."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the photo; right and bottom exclusive."""
    area_fraction: float
    """Share of the photo's pixels inside the whole proposal, 0..1, covered parts included."""
    class_index: int
    """Index of the winning class, 0 if nothing claims the region."""
    confidence: float
    """Probability that the winning class is right here, 0..1, calibrated where the rule is the default one;
    of the best typed class if nothing claims the region."""
    quality: float
    """The proposer's own prediction of how good the mask is, 0..1."""
    top: tuple[tuple[str, float], ...]
    """Up to five (typed name, score) pairs, best first; hidden names have their share of 1 beside them. The
    score of the winning class is `confidence`."""
    closest_hidden: str = ""
    """Of a region that nothing claims: the hidden name that fits it better than every typed one."""
    corrected: bool = False
    """A person drew or named it: it lies over all proposals; without a class it leaves pixels unassigned."""
    nearest_example: tuple[str, float] | None = None
    """With a memory: the name of the example that is most alike, and its cosine, -1..1."""

    def __post_init__(self) -> None:
        left, upper, right, lower = self.box
        _require(self.id >= 1, f"region ids count from 1, got {self.id}")
        _require(0 <= left < right and 0 <= upper < lower, f"region {self.id} has an empty box: {self.box}")
        _require(self.class_index >= 0, f"region {self.id} has the class index {self.class_index}")
        _require_fraction("area_fraction", self.area_fraction)
        _require_fraction("confidence", self.confidence)
        _require_fraction("quality", self.quality)
        _require(len(self.top) <= 5, f"region {self.id} lists {len(self.top)} names, five at most")
        scores = [score for _, score in self.top]
        _require(scores == sorted(scores, reverse=True), f"the names of region {self.id} are not best first")

    def to_json(self) -> dict[str, Any]:
        """Plain types only, in the order people read them."""
        return {
            "id": self.id,
            "box": list(self.box),
            "area_fraction": _short(self.area_fraction),
            "class_index": self.class_index,
            "confidence": _short(self.confidence),
            "quality": _short(self.quality),
            "top": [{"name": name, "score": _short(score)} for name, score in self.top],
            "closest_hidden": self.closest_hidden,
            "corrected": self.corrected,
            **({"nearest_example": self._nearest()} if self.nearest_example else {}),
        }

    def _nearest(self) -> dict[str, Any]:
        name, alike = self.nearest_example or ("", 0.0)
        return {"name": name, "cosine": _short(alike)}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A photo, the words asked for, and where they are.

    Compared by identity: two results are equal only if they are the same object.
    """

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB, the photo as read, at its own size."""
    label_map: npt.NDArray[np.uint16]
    """(H, W): 0 = unassigned, i = the i-th class."""
    region_map: npt.NDArray[np.uint16]
    """(H, W): id of the region that decided the pixel, 0 = none."""
    classes: tuple[ClassResult, ...]
    """In the order typed; `classes[i].index == i + 1`."""
    regions: tuple[RegionResult, ...]
    """All proposals that were classified, in the proposer's order."""
    timings: Mapping[str, float]
    """Seconds per stage: "read", "propose", "crop", "embed", "text", "merge", "total"."""
    models: Mapping[str, Any]
    """Names, versions and hashes of the models that took part."""
    settings: Mapping[str, Any]
    """What is needed to get this result again."""
    arm: Arm
    """Which weights classified the regions."""
    masks: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    """(R, h, w) whole masks of `regions`, in their order, at the working size: what the classifier saw."""

    def __post_init__(self) -> None:
        _require(
            self.image.ndim == 3 and self.image.shape[2] == 3 and self.image.dtype == np.uint8,
            f"the photo must be uint8 (H, W, 3), got {self.image.dtype} {self.image.shape}",
        )
        _require(bool(self.arm), "a result needs the name of its arm")
        indices = [c.index for c in self.classes]
        _require(
            indices == list(range(1, len(indices) + 1)), f"classes are numbered 1, 2, 3..., not {indices}"
        )
        ids = [r.id for r in self.regions]
        _require(len(set(ids)) == len(ids), "two regions have the same id")
        strays = [r.id for r in self.regions if r.class_index > len(indices)]
        _require(not strays, f"regions {strays[:5]} belong to a class that was not asked for")
        self._check_map("label_map", self.label_map, {UNASSIGNED, *indices})
        self._check_map("region_map", self.region_map, {0, *ids})
        if self.masks is not None:
            _require(
                self.masks.ndim == 3 and len(self.masks) == len(ids) and self.masks.dtype == np.bool_,
                f"masks must be bool ({len(ids)}, h, w), got {self.masks.dtype} {self.masks.shape}",
            )

    def _check_map(self, name: str, values: npt.NDArray[np.uint16], allowed: set[int]) -> None:
        _require(
            values.shape == self.image.shape[:2] and values.dtype == np.uint16,
            f"{name} must be uint16 {self.image.shape[:2]}, got {values.dtype} {values.shape}",
        )
        # Classes and most regions are numbered without a gap, so that the largest value says it all.
        if values.size and values.max() <= max(allowed) == len(allowed) - 1:
            return
        explained = np.zeros(1 << 16, dtype=np.bool_)
        explained[[value for value in allowed if value < len(explained)]] = True
        if not explained[values].all():
            unknown = sorted(set(np.unique(values).tolist()) - allowed)
            _require(False, f"{name} uses values that nothing explains: {unknown[:5]}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo in pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def found(self) -> tuple[ClassResult, ...]:
        """Classes that are in the photo, largest area first."""
        return tuple(sorted((c for c in self.classes if c.found), key=lambda c: (-c.area_fraction, c.index)))

    @property
    def not_found(self) -> tuple[ClassResult, ...]:
        """Classes that were asked for and are not there, in the order typed."""
        return tuple(c for c in self.classes if not c.found)

    @property
    def unassigned_fraction(self) -> float:
        """Share of the photo's pixels that no word fits, 0..1."""
        return float(np.mean(self.label_map == UNASSIGNED))

    def region(self, region_id: int) -> RegionResult:
        """The region with this id; `KeyError` if there is none."""
        for region in self.regions:
            if region.id == region_id:
                return region
        raise KeyError(region_id)

    def region_at(self, x: int, y: int) -> RegionResult | None:
        """The region that decided pixel (x, y) of the photo, or None."""
        region_id = int(self.region_map[y, x])
        return self.region(region_id) if region_id else None

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, in plain types; the layout of `result.json`."""
        width, height = self.size
        return {
            "width": width,
            "height": height,
            "arm": self.arm,
            "unassigned_fraction": _short(self.unassigned_fraction),
            "classes": [c.to_json() for c in self.classes],
            "regions": [r.to_json() for r in self.regions],
            "timings": {stage: round(float(seconds), 4) for stage, seconds in self.timings.items()},
            "models": dict(self.models),
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two arms on the same photo, words, proposals, templates and merge rule."""

    first: Segmentation
    """The plainer arm, by default vanilla."""
    second: Segmentation
    """The arm that is compared with it, by default adapted."""
    changed_fraction: float
    """Share of the photo's pixels whose class differs, 0..1."""
    renamed: tuple[int, ...]
    """Ids of the regions whose class differs."""
    verdict: str
    """One sentence that says what changed and how much, never which arm is right."""

    def __post_init__(self) -> None:
        _require(self.first.arm != self.second.arm, f"both results are of the arm {self.first.arm}")
        _require(self.first.size == self.second.size, "the arms show photos of different size")
        names = [[c.name for c in arm.classes] for arm in self.arms]
        _require(names[0] == names[1], "the arms were asked for different words")
        _require_fraction("changed_fraction", self.changed_fraction)

    @property
    def arms(self) -> tuple[Segmentation, Segmentation]:
        """Both results in their order."""
        return self.first, self.second

    def to_json(self) -> dict[str, Any]:
        """What changed, in plain types; each arm's own facts are in its `to_json()`."""
        return {
            "verdict": self.verdict,
            "changed_fraction": _short(self.changed_fraction),
            "arms": [arm.arm for arm in self.arms],
            "renamed": [{"id": i, **{arm.arm: _name_of(arm, i) for arm in self.arms}} for i in self.renamed],
        }


def compare(first: Segmentation, second: Segmentation) -> Comparison:
    """What differs between two arms; regions match by id, so both must have had the same proposals."""
    changed = float(np.mean(first.label_map != second.label_map))
    before = {r.id: r.class_index for r in first.regions}
    renamed = tuple(r.id for r in second.regions if before.get(r.id, r.class_index) != r.class_index)
    return Comparison(first, second, changed, renamed, _verdict(first, second, changed, len(renamed)))


def _verdict(first: Segmentation, second: Segmentation, changed: float, renamed: int) -> str:
    if changed == 0 and renamed == 0:
        return "Both arms agree on every pixel."
    regions = "region" if renamed == 1 else "regions"
    parts = [f"{percent(changed)} of pixels changed", f"{renamed} {regions} renamed"]
    before, after = {c.index for c in first.found}, {c.index for c in second.found}
    for arm, indices in ((second.arm, after - before), (first.arm, before - after)):
        if indices:
            parts.append(
                f"only {arm} finds {_listing([c.name for c in second.classes if c.index in indices])}"
            )
    return "; ".join(parts) + "."


def _listing(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _name_of(result: Segmentation, region_id: int) -> str | None:
    index = result.region(region_id).class_index
    return result.classes[index - 1].name if index else None


def percent(fraction: float) -> str:
    """A share as people say it: "0 %", "< 1 %", "14 %"."""
    if 0 < fraction < 0.01:
        return "< 1 %"
    return f"{fraction * 100:.0f} %"


def _short(value: float) -> float:
    return round(float(value), 5)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{message}.")


def _require_fraction(name: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, f"{name} must lie in 0..1, got {value}")
