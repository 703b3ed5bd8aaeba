"""Corrections as the viewer sends them: read, and laid over a result.

The viewer draws corrections itself, at the size of its maps; here they become those of the photo, for files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.corrections import CorrectedRegion, apply_corrections
from ovseg_demo.corrections.corrected_region import check_count
from ovseg_demo.errors import CorrectionError, quoted
from ovseg_demo.output.mask_formats import decode_rle
from ovseg_demo.output.palette import assign_colours
from ovseg_demo.page.viewer.payload import MAX_MAP_SIDE
from ovseg_demo.result import ClassResult, Colour, Comparison, Segmentation, compare
from ovseg_demo.vocabulary import fold

__all__ = ["full_mask", "map_size", "sent_regions", "with_sent_corrections"]

Mask = npt.NDArray[np.bool_]


def with_sent_corrections(
    result: Segmentation | Comparison, content: object, check: Callable[[], None] = lambda: None
) -> Segmentation | Comparison:
    """A result with the corrections of its visitor over it.

    Args:
        result: without them.
        content: parsed JSON of the viewer: `map` (height and width of its maps), `regions` (each with
            `counts` at that size or `full` at the photo's, and `name`), and `colours` by folded name.
        check: called between two corrections; raises to end the work.

    Raises:
        CorrectionError: the content has another form, or is of another photo.
    """
    first = result.second if isinstance(result, Comparison) else result
    corrections = sent_regions(content, first.label_map.shape, check)
    colours = content.get("colours") if isinstance(content, dict) else None
    chosen = colours if isinstance(colours, dict) else {}
    if isinstance(result, Comparison):
        return compare(*(_with(arm, corrections, chosen, check) for arm in result.arms))
    return _with(result, corrections, chosen, check)


def sent_regions(
    content: object, photo_size: tuple[int, ...], check: Callable[[], None] = lambda: None
) -> list[CorrectedRegion]:
    """The corrected regions in what the viewer sends, at the size of the photo.

    Args:
        content: as for `with_sent_corrections`.
        photo_size: height and width of the photo.
        check: called between two corrections; raises to end the work.

    Raises:
        CorrectionError: the content has another form, or there are too many.
    """
    if not isinstance(content, dict) or not isinstance(content.get("regions"), list):
        raise CorrectionError("The corrections cannot be read; reload the page.")
    check_count(len(content["regions"]))
    size = map_size(content.get("map"))
    corrections = []
    for one in content["regions"]:
        check()
        corrections.append(_region(one, size, photo_size))
    return corrections


def _region(one: object, size: tuple[int, int], photo_size: tuple[int, ...]) -> CorrectedRegion:
    if not isinstance(one, dict):
        raise CorrectionError("A correction cannot be read; reload the page.")
    if isinstance(one.get("full"), str):
        return CorrectedRegion(one["full"], (photo_size[0], photo_size[1]), one.get("name"))
    return CorrectedRegion.of(full_mask(one.get("counts"), size, photo_size), one.get("name"))


def _with(
    arm: Segmentation,
    corrections: Sequence[CorrectedRegion],
    chosen: Mapping[str, Any],
    check: Callable[[], None],
) -> Segmentation:
    """One arm with corrections, whose names are classes of it."""
    known = {fold(word) for c in arm.classes for word in c.synonyms}
    new = {fold(r.name): r.name for r in corrections if r.name is not None and fold(r.name) not in known}
    names = [*(c.name for c in arm.classes), *new.values()]
    fallback = assign_colours(names)[len(arm.classes) :]
    added = tuple(
        ClassResult(name, (name,), len(arm.classes) + i, _colour(chosen.get(key), own), False, 0.0, 0.0)
        for i, ((key, name), own) in enumerate(zip(new.items(), fallback, strict=True), start=1)
    )
    return apply_corrections(replace(arm, classes=(*arm.classes, *added)), corrections, check)


def _colour(value: object, otherwise: Colour) -> Colour:
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    return otherwise


def full_mask(counts: object, size: tuple[int, int], photo_size: tuple[int, ...]) -> Mask:
    """A mask of the viewer at the size of the photo.

    Args:
        counts: COCO's compressed run lengths.
        size: height and width of the viewer's map.
        photo_size: height and width of the photo.

    Raises:
        CorrectionError: the code is damaged, or the mask is empty.
    """
    try:
        mask = decode_rle(counts if isinstance(counts, str) else "", size)
    except ValueError as error:
        raise CorrectionError(f"A mask cannot be read: {error}.") from None
    if not mask.any():
        raise CorrectionError("The mask is empty; mark at least one pixel.")
    height, width = photo_size[:2]
    if mask.shape == (height, width):
        return mask
    code = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
    resized = cv2.resize(code, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized > min(127, int(resized.max()) - 1))


def map_size(value: object) -> tuple[int, int]:
    """Height and width of the viewer's maps.

    Raises:
        CorrectionError: they are no such numbers.
    """
    if isinstance(value, list) and len(value) == 2:
        height, width = value
        if all(type(side) is int and 0 < side <= MAX_MAP_SIDE for side in (height, width)):
            return height, width
    raise CorrectionError(f"The size of the map is {quoted(value)}; reload the page.")
