"""Corrections over a result: the words they add, and the pixels they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.corrections.corrected_region import (
    CorrectedRegion,
    check_count,
    check_size,
    corrections_to_json,
)
from ovseg_demo.errors import CorrectionError
from ovseg_demo.result import ClassResult, RegionResult, Segmentation
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary, fold


def joined_vocabulary(
    names: str | Iterable[str] | Vocabulary,
    more: Iterable[str],
    *,
    max_names: int = Settings.max_names,
    max_name_length: int = Settings.max_name_length,
) -> Vocabulary:
    """The typed words, and behind them the names of corrections and examples that are not among them.

    Args:
        names: as for `Vocabulary.of`; text may be empty where there are more names.
        more: one name each, without bars.
        max_names: most names, synonyms included.
        max_name_length: most characters in one name.

    Raises:
        VocabularyError: there is no name at all, one is too long, or there are too many.
    """
    limits = {"max_names": max_names, "max_name_length": max_name_length}
    wanted: dict[str, str] = {}
    for name in more:
        wanted.setdefault(fold(name), name)
    if (
        wanted
        and not isinstance(names, Vocabulary)
        and not (names.strip() if isinstance(names, str) else names)
    ):
        return Vocabulary.of(wanted.values(), **limits)
    vocabulary = Vocabulary.of(names, **limits)
    known = {fold(word) for word in vocabulary.prompts}
    new = [name for key, name in wanted.items() if key not in known]
    if not new:
        return vocabulary
    return Vocabulary.of([*(" | ".join(item.synonyms) for item in vocabulary), *new], **limits)


def apply_corrections(
    seg: Segmentation, corrections: Sequence[CorrectedRegion], check: Callable[[], None] = lambda: None
) -> Segmentation:
    """Lay corrections over a result, in their order.

    Their pixels take the class of their name, whatever the scores; a region without a name takes them from
    all classes. Each becomes a region of its own with `corrected` set, numbered after the proposals.

    Args:
        seg: whose vocabulary holds every name of the corrections, as `joined_vocabulary` makes it.
        corrections: of the photo's own size.
        check: called between two corrections; raises to end the work.

    Raises:
        CorrectionError: a mask has another size than the photo, a name is not in the vocabulary, or there are
            more than a result can number.
    """
    if not corrections:
        return seg
    check_count(len(corrections))
    height, width = seg.label_map.shape
    classes = {fold(word): c.index for c in seg.classes for word in c.synonyms}
    labels, regions = seg.label_map.copy(), seg.region_map.copy()
    first = max((region.id for region in seg.regions), default=0) + 1
    if first + len(corrections) > np.iinfo(np.uint16).max:
        raise CorrectionError(f"{len(corrections):,} corrections are too many beside {first - 1:,} regions.")
    told, small = [], []
    for number, correction in enumerate(corrections, start=first):
        check()
        check_size(correction.size, (height, width))
        index = 0 if correction.name is None else classes.get(fold(correction.name), -1)
        if index < 0:
            raise CorrectionError(f"No class is called {correction.name!r}; type it among the words.")
        mask = correction.mask
        labels[mask], regions[mask] = index, number
        told.append(_region(number, index, correction.name, mask))
        if seg.masks is not None:
            small.append(at_size(mask, seg.masks.shape[1:]))
    masks = seg.masks
    if masks is not None:
        masks = np.concatenate([masks, np.stack(small)])
    named = {region.class_index for region in told}
    return replace(
        seg,
        label_map=labels,
        region_map=regions,
        classes=_recounted(seg.classes, labels, named),
        regions=(*seg.regions, *told),
        masks=masks,
        settings={**seg.settings, "corrections": corrections_to_json(corrections)},
    )


def _region(number: int, index: int, name: str | None, mask: npt.NDArray[np.bool_]) -> RegionResult:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return RegionResult(
        id=number,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        area_fraction=float(np.count_nonzero(mask) / mask.size),
        class_index=index,
        confidence=1.0,
        quality=1.0,
        top=() if name is None else ((name, 1.0),),
        corrected=True,
    )


def _recounted(
    classes: tuple[ClassResult, ...], labels: npt.NDArray[np.uint16], named: set[int]
) -> tuple[ClassResult, ...]:
    """The classes as the corrected map has them: found where it shows them, sure where a person said so."""
    pixels = np.bincount(labels.ravel(), minlength=len(classes) + 1)
    return tuple(
        replace(
            c,
            found=bool(pixels[c.index]),
            area_fraction=float(pixels[c.index] / labels.size),
            confidence=1.0 if c.index in named and pixels[c.index] else c.confidence,
        )
        for c in classes
    )


def at_size(mask: npt.NDArray[np.bool_], size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A mask at another (height, width); one that is too thin for it keeps one pixel."""
    if mask.shape == size:
        return mask
    height, width = size
    code = np.ascontiguousarray(mask).view(np.uint8)
    small = cv2.resize(code, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    if not small.any():
        y, x = (int(values.mean()) for values in np.nonzero(mask))
        small[min(y * height // mask.shape[0], height - 1), min(x * width // mask.shape[1], width - 1)] = True
    return np.asarray(small)
