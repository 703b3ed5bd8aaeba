"""Judge a result against the truth of its photo, with the figures of `metrics.py`.

The truth is a label map of the photo, or what a person says of some of its regions:

truth = read_truth(Path("label_map.png").read_bytes(), result, Path("classes.json").read_bytes())
truth = corrected_truth(result, [CorrectedRegion.of(mask, "cow")])
print(judge(result, truth).miou)
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ovseg_demo.corrections import CorrectedRegion
from ovseg_demo.corrections.corrected_region import check_count, check_size
from ovseg_demo.errors import CorrectionError, ImageError, VocabularyError, quoted
from ovseg_demo.evaluation.metrics import (
    Counts,
    PhotoCounts,
    Reliability,
    Tally,
    confusion_matrix,
    percent_of,
)
from ovseg_demo.result import Segmentation
from ovseg_demo.vocabulary import fold

__all__ = ["Judgement", "Truth", "corrected_truth", "judge", "read_truth"]

IGNORE = -1
"""Value of `Truth.labels` where the truth is unknown, or is a name that was not asked for."""
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Truth:
    """What a photo shows, in the classes of a result."""

    labels: NDArray[np.int32]
    """(H, W) place of the class from 0, or `IGNORE`."""
    left_out: Mapping[str, float]
    """Share of the photo, 0..1, by name: what the truth names and was not asked for."""


@dataclass(frozen=True)
class Judgement:
    """How right a result is on one photo. Percent; NaN where there is nothing to divide by."""

    miou: float
    pixel_accuracy: float
    mean_class_accuracy: float
    accuracy: NDArray[np.float64]
    """(C,) share of each true class that got its name."""
    iou: NDArray[np.float64]
    """(C,)"""
    confusion: Counts
    """(C, C + 1) pixels by true class and by what they were given: unassigned, then the classes."""
    reliability: Reliability
    """Of the confidence of the regions that decided the labelled pixels, each pixel counted once."""


def read_truth(label_map: bytes, seg: Segmentation, classes: bytes | None = None) -> Truth:
    """Read a label map in the forms that are exported: numbers in a PNG, their names in `classes.json`.

    Args:
        label_map: a palette or grey PNG of the size of the photo. 0 is unassigned, as is 255 (in 16 bits
            65535) unless it has a name: such pixels count nowhere.
        seg: a result of the same photo.
        classes: `classes.json`; without it, number i is the i-th word that was asked for.

    Raises:
        ImageError: the file is no such PNG, or has another size than the photo.
        VocabularyError: the names cannot be read, a number has none, or no name was asked for.
    """
    numbers = _numbers(label_map, seg.size)
    names = {c.index: c.name for c in seg.classes} if classes is None else _names(classes)
    unknown = {0, 65535 if numbers.dtype == np.uint16 else 255} - set(names)
    used = np.flatnonzero(np.bincount(numbers.ravel()))
    strays = [int(number) for number in used if number not in names and number not in unknown]
    if strays:
        told = ", ".join(map(str, strays[:_MOST_SHOWN])) + (" and more" if len(strays) > _MOST_SHOWN else "")
        where = "among the words there is no" if classes is None else "classes.json has no name for"
        advice = "drop classes.json with it" if classes is None else "add it"
        raise VocabularyError(f"The label map has the number {told}, and {where} such number; {advice}.")
    truth = _in_classes(seg, numbers, names)
    if not (truth.labels != IGNORE).any():
        raise _nothing_asked(seg, truth, "label map shows")
    return truth


def corrected_truth(seg: Segmentation, corrections: Sequence[CorrectedRegion]) -> Truth:
    """Take what a person said of regions of a photo as its truth; all other pixels count nowhere.

    Args:
        seg: a result of the photo, before its corrections.
        corrections: of the photo's own size; later ones lie on top. A region without a name, whose pixels
            belong to no word, counts nowhere: the figures have no class for it.

    Raises:
        CorrectionError: no region has a name, a mask has another size than the photo, or there are too many.
        VocabularyError: none of the names was asked for.
    """
    check_count(len(corrections))
    height, width = seg.label_map.shape
    numbers = np.zeros((height, width), dtype=np.uint16)
    known: dict[str, int] = {}
    names: dict[int, str] = {}
    for region in corrections:
        check_size(region.size, (height, width))
        number = 0
        if region.name is not None:
            number = known.setdefault(fold(region.name), len(known) + 1)
            names.setdefault(number, region.name)
        numbers[region.mask] = number
    if not numbers.any():
        raise CorrectionError("No corrected region has a name; name or accept one.")
    truth = _in_classes(seg, numbers, names)
    if not (truth.labels != IGNORE).any():
        raise _nothing_asked(seg, truth, "corrections name")
    return truth


def _in_classes(seg: Segmentation, numbers: NDArray[np.unsignedinteger], names: Mapping[int, str]) -> Truth:
    """(H, W) numbers, of which some have names, in the classes of a result; the others are unknown."""
    place = {fold(word): c.index - 1 for c in seg.classes for word in c.synonyms}
    table = np.full(int(numbers.max(initial=0)) + 1, IGNORE, dtype=np.int32)
    left_out: dict[str, float] = {}
    for number in np.flatnonzero(np.bincount(numbers.ravel())).tolist():
        name = names.get(number)
        if name is not None and fold(name) in place:
            table[number] = place[fold(name)]
        elif name is not None:
            left_out[name] = left_out.get(name, 0.0) + float(np.mean(numbers == number))
    return Truth(table[numbers], left_out)


def _nothing_asked(seg: Segmentation, truth: Truth, what: str) -> VocabularyError:
    asked = ", ".join(c.name for c in seg.classes[:_MOST_SHOWN])
    found = ", ".join(quoted(name, 30) for name in list(truth.left_out)[:_MOST_SHOWN]) or "nothing"
    return VocabularyError(
        f"The {what} {found} and none of the words ({asked}); type its names and press Run."
    )


def _numbers(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The numbers in a PNG, whose size is compared before it is decoded."""
    try:
        picture = Image.open(io.BytesIO(content), formats=("PNG",))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ImageError("The label map is no PNG; drop label_map.png, and classes.json with it.") from None
    if picture.size != size:
        wanted, got = ("{} x {}".format(*sides) for sides in (size, picture.size))
        raise ImageError(f"The label map is {got} pixels and the photo {wanted}; drop the one of this photo.")
    if picture.mode not in ("P", "L", "1", "I;16", "I"):
        raise ImageError(
            "The label map is a picture in colours; save it as a palette or grey PNG of class numbers."
        )
    try:
        values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError):
        raise ImageError("The label map is damaged; save it again.") from None
    if picture.mode in ("I;16", "I"):
        return np.asarray(np.clip(values, 0, 65535), dtype=np.uint16)
    return np.asarray(values, dtype=np.uint8)


def _names(content: bytes) -> dict[int, str]:
    """Names by number, from `classes.json` as it is exported, or from an object of numbers and names."""
    told = 'classes.json holds no names by number; export it again, or write {"1": "name"}.'
    try:
        rows: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise VocabularyError("classes.json is no JSON; export it again.") from None
    names: dict[int, str] = {}
    pairs = rows.items() if isinstance(rows, dict) else rows if isinstance(rows, list) else ()
    for row in pairs:
        if isinstance(row, dict):
            number, name = row.get("index"), row.get("name")
        elif isinstance(row, tuple):
            number, name = row
        else:
            raise VocabularyError(told)
        try:
            number = int(str(number))
        except ValueError:
            raise VocabularyError(told) from None
        if isinstance(name, str) and name:
            names[number] = name
        elif name is not None:
            raise VocabularyError(told)
    if not names:
        raise VocabularyError(told)
    return names


def judge(seg: Segmentation, truth: Truth) -> Judgement:
    """Compare the label map of a result with the truth.

    mIoU divides by the classes that truth or result show; unassigned pixels miss their class.

    Raises:
        ValueError: the truth has another size.
    """
    confusion = confusion_matrix(truth.labels, seg.label_map, len(seg.classes), IGNORE)
    counts = PhotoCounts.of(confusion, np.array([c.found for c in seg.classes]))
    figures = Tally([counts]).figures()
    return Judgement(
        miou=float(figures["miou"][0]),
        pixel_accuracy=float(figures["pixel_accuracy"][0]),
        mean_class_accuracy=float(figures["mean_class_accuracy"][0]),
        accuracy=percent_of(counts.hits.astype(np.float64), counts.truth.astype(np.float64)),
        iou=figures["iou"][0],
        confusion=confusion,
        reliability=_reliability(seg, truth),
    )


def _reliability(seg: Segmentation, truth: Truth) -> Reliability:
    confidences = np.zeros(int(seg.region_map.max(initial=0)) + 1)
    for region in seg.regions:
        if region.id < len(confidences):
            confidences[region.id] = region.confidence
    judged = (truth.labels != IGNORE) & (seg.label_map > 0) & (seg.region_map > 0)
    right = seg.label_map[judged].astype(np.int32) - 1 == truth.labels[judged]
    return Reliability.of(confidences[seg.region_map[judged]], right)
