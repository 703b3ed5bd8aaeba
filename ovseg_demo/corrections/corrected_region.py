"""One corrected region, and the JSON form of an ordered list of them.

Every edit is a list of corrected regions; later ones lie on top of earlier ones:

    rename  the mask of the region, with the new name
    delete  the mask of the region, without a name: its pixels are unassigned
    add     a new mask with a name
    merge   the union of the masks, with one name
    cut     two masks with a name each
    brush   the edited mask with the name, over what was there

The list is all there is to know, so that undo and redo are a stack of lists and a server keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg_demo.errors import CorrectionError, quoted
from ovseg_demo.output.mask_formats import decode_rle, decode_run_lengths, encode_rle
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import clean_name

MAX_CORRECTIONS = 1000
"""Most corrected regions of one photo."""
MAX_CODE_BYTES = 4_000_000
"""Most characters of all run-length codes of one photo together."""

_VERSION = 1
_MARKUP = re.compile(r"<[^<>]*>|<[A-Za-z!/?]|&#?\w+;")


@dataclass(frozen=True)
class CorrectedRegion:
    """A region of a photo and what a person says it is; equal if mask and name are.

    Made by `of` from a mask, or from run lengths, which are checked either way.

    Attributes:
        counts: the mask as COCO's compressed run lengths; at least one pixel is set.
        size: height and width of the photo in pixels.
        name: what the region shows, cleaned as typed words are; None = no word fits, its pixels become
            unassigned.

    Raises:
        CorrectionError: the mask is empty or damaged, or the name cannot be used.
    """

    counts: str
    size: tuple[int, int]
    name: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        if self.name is not None:
            object.__setattr__(self, "name", correction_name(self.name))
        height, width = self.size
        runs = decode_run_lengths(self.counts) if self.counts.isascii() else None
        if runs is None:
            raise CorrectionError(f"The mask of {self._told()} is damaged; send it again.")
        if height < 1 or width < 1 or int(runs.sum()) != height * width:
            raise CorrectionError(
                f"The mask of {self._told()} covers {int(runs.sum()):,} pixels and the photo has "
                f"{width} x {height}; take a mask of this photo."
            )
        if not runs[1::2].any():
            raise CorrectionError(f"The mask of {self._told()} is empty; mark at least one pixel.")

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], name: str | None) -> CorrectedRegion:
        """From a (H, W) bool mask at the photo's own size.

        Raises:
            CorrectionError: the mask has another type, or is empty, or the name cannot be used.
        """
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
            found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise CorrectionError(f"The mask of a correction must be bool (height, width), not {found}.")
        return cls(encode_rle(mask), (mask.shape[0], mask.shape[1]), name)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool, decoded anew each time."""
        return decode_rle(self.counts, self.size)

    def _told(self) -> str:
        return "a correction" if self.name is None else f"the correction {quoted(self.name)}"


def correction_name(name: object, max_length: int = Settings.max_name_length) -> str:
    """A name as it is kept: without what cannot be seen, blanks made one.

    Raises:
        CorrectionError: it is no text, shows nothing, is too long, or holds markup or a bar.
    """
    if not isinstance(name, str):
        raise CorrectionError(f"{quoted(name)} is of type {type(name).__name__}; a name is text.")
    if len(name) > 10 * max_length:
        raise CorrectionError(f"The name {quoted(name, 30)} has {len(name):,} characters; shorten it.")
    cleaned = clean_name(name)
    if not cleaned:
        raise CorrectionError(f"The name {quoted(name)} shows nothing; type a word, or remove the region.")
    if len(cleaned) > max_length:
        raise CorrectionError(
            f"The name {quoted(cleaned, 30)} has {len(cleaned):,} characters and at most {max_length:,} are "
            "allowed; shorten it."
        )
    if _MARKUP.search(cleaned):
        raise CorrectionError(f"The name {quoted(cleaned)} holds markup; write it as plain words.")
    if "|" in cleaned or "\uff5c" in cleaned:
        raise CorrectionError(
            f"The name {quoted(cleaned)} holds a bar, which parts synonyms; write one name."
        )
    return cleaned


def corrections_to_json(corrections: Sequence[CorrectedRegion]) -> dict[str, Any]:
    """Plain types: `{"version": 1, "size": [height, width], "regions": [{"counts": ..., "name": ...}]}`."""
    size = list(corrections[0].size) if corrections else [0, 0]
    regions = [{"counts": region.counts, "name": region.name} for region in corrections]
    return {"version": _VERSION, "size": size, "regions": regions}


def corrections_from_json(
    content: Any, size: tuple[int, int] | None = None, *, max_name_length: int = Settings.max_name_length
) -> tuple[CorrectedRegion, ...]:
    """Read `corrections_to_json`, from anybody: everything is checked and bounded.

    Args:
        content: parsed JSON.
        size: height and width of the photo, where it is known.
        max_name_length: most characters of a name.

    Raises:
        CorrectionError: the content has another form, is of another photo's size, or is too large.
    """
    if not isinstance(content, dict) or not isinstance(content.get("regions"), list):
        raise CorrectionError('Corrections are a JSON object with a list "regions"; save them again.')
    if content.get("version", _VERSION) != _VERSION:
        raise CorrectionError(
            f"Corrections of version {quoted(content['version'])} cannot be read, only version {_VERSION}; "
            "update this program."
        )
    regions = content["regions"]
    check_count(len(regions))
    if not regions:
        return ()
    own = content.get("size")
    if not (isinstance(own, list) and len(own) == 2 and all(type(side) is int and side > 0 for side in own)):
        raise CorrectionError(f"Corrections need the photo's size as [height, width], not {quoted(own)}.")
    check_size((own[0], own[1]), size)
    total = 0
    read = []
    for number, region in enumerate(regions, start=1):
        if not isinstance(region, dict) or not isinstance(region.get("counts"), str):
            raise CorrectionError(f"Correction {number} has no run lengths as text; save them again.")
        total += len(region["counts"])
        if total > MAX_CODE_BYTES:
            raise CorrectionError(
                f"The masks of the corrections have more than {MAX_CODE_BYTES:,} bytes; leave some out."
            )
        name = region.get("name")
        name = None if name is None else correction_name(name, max_name_length)
        read.append(CorrectedRegion(region["counts"], (own[0], own[1]), name))
    return tuple(read)


def check_count(count: int) -> None:
    """Refuse more than `MAX_CORRECTIONS`."""
    if count > MAX_CORRECTIONS:
        raise CorrectionError(
            f"There are {count:,} corrected regions and at most {MAX_CORRECTIONS:,} are read; leave some out."
        )


def check_size(found: tuple[int, int], wanted: tuple[int, int] | None) -> None:
    """Refuse corrections whose (height, width) is not the photo's."""
    if wanted is not None and found != wanted:
        raise CorrectionError(
            f"The corrections are of a photo of {found[1]} x {found[0]} and this one has "
            f"{wanted[1]} x {wanted[0]}; open them with their own photo."
        )
