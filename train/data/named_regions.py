"""Regions of training photos that are named in everyday English (`named_regions/` of the data folder).

A region may have several names, all of them right. `part_of` says what it is a part of: neither right nor
wrong as its name. Fold 0 is for choosing and calibrating and is never trained on, in no stage and with no
words: `training_regions` leaves it out, and `held_out_photos` tells other readers which photos those are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovseg_demo.errors import SettingsError, quoted
from ovseg_demo.output.mask_formats import decode_run_lengths
from train.data.sources import DataError, Photo, photo_at

FOLDER = "named_regions"
HELD_OUT_FOLD = 0
TRAINING_FOLDS = tuple(range(1, 10))
INHERIT_IOU = 0.85
"""Unnamed proposals that meet a named one by more than this show the same thing."""

_PHOTO_FIELDS = {"photo", "fold", "size", "regions"}
_REGION_FIELDS = {"rle", "quality", "names", "part_of"}


@dataclass(frozen=True)
class NamedRegion:
    """One proposal of a photo and what it shows.

    Attributes:
        run_lengths: COCO's compressed run-length code.
        size: height and width of the photo in pixels.
        quality: the proposer's own guess of its mask, 0..1.
        names: all right names, the natural one first; () = shown to an annotator and unclear; None = never
            shown.
        part_of: what the region is a part of.
        where: file, line and photo, for messages.
        inherited: whether the names are those of a named region that it meets.
    """

    run_lengths: str
    size: tuple[int, int]
    quality: float
    names: tuple[str, ...] | None
    part_of: tuple[str, ...] = ()
    where: str = ""
    inherited: bool = False

    def mask(self) -> NDArray[np.bool_]:
        """Decode the mask, (H, W) bool.

        Raises:
            DataError: the code does not fit the size.
        """
        runs = self._runs()
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return inside.reshape(self.size[::-1]).T

    def coco_form(self) -> dict[str, Any]:
        """As pycocotools takes it.

        Raises:
            DataError: the code does not fit the size.
        """
        self._runs()
        return {"size": list(self.size), "counts": self.run_lengths}

    def _runs(self) -> NDArray[np.int64]:
        """Lengths of the runs, column by column, background first."""
        runs = decode_run_lengths(self.run_lengths)
        height, width = self.size
        if runs is None or runs.sum() != height * width:
            covers = "is damaged" if runs is None else f"covers {runs.sum():,} pixels"
            raise DataError(
                f"{self.where}: the run-length code of a region {covers}, and the photo has "
                f"{width} x {height} = {height * width:,}; restore the file."
            )
        return runs


@dataclass(frozen=True)
class NamedPhoto:
    """A photo with all its proposals, large ones first.

    Attributes:
        name: path of the photo below the data folder.
        fold: 0 to 9.
        size: height and width in pixels.
        regions: proposals, named and unnamed.
        source: reads the photo, with its own aspect where the file is squashed.
    """

    name: str
    fold: int
    size: tuple[int, int]
    regions: tuple[NamedRegion, ...]
    source: Photo

    def read(self) -> NDArray[np.uint8]:
        """Load the photo, (H, W, 3) uint8 RGB.

        Raises:
            DataError: it has another size than its regions.
        """
        image = self.source.read()
        if image.shape[:2] != self.size:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], self.size
            raise DataError(
                f"{self.source.path} is {width} x {height} and its named regions are of a photo of "
                f"{wanted_width} x {wanted_height}; restore the photo."
            )
        return image

    def named(self) -> list[NamedRegion]:
        """The regions with at least one name."""
        return [region for region in self.regions if region.names]


def read_named_regions(root: Path, folds: Collection[int] | None = None) -> tuple[NamedPhoto, ...]:
    """All photos with named regions, or those of some folds. Fold 0 is not for training.

    Args:
        root: the data folder.
        folds: 0 to 9; None = all.

    Raises:
        DataError: the file or a photo is missing, a line is damaged or has a field that is not known.
    """
    file = root / FOLDER / "regions.jsonl"
    if not file.is_file():
        raise DataError(f"{file} is missing: give the folder that holds {FOLDER} with --data.")
    photos = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            photo = _photo(line, root, f"{file}, line {number}", folds)
            if photo is not None:
                photos.append(photo)
    return tuple(photos)


def training_regions(root: Path, folds: Sequence[int] = TRAINING_FOLDS) -> tuple[NamedPhoto, ...]:
    """The photos that may be trained on.

    Raises:
        SettingsError: fold 0 is among the folds, or there is none of that number.
        DataError: see `read_named_regions`.
    """
    if HELD_OUT_FOLD in folds:
        raise SettingsError(
            "Fold 0 of the named regions is for choosing and calibrating and is never trained on: "
            "give folds from 1 to 9."
        )
    unknown = [fold for fold in folds if fold not in TRAINING_FOLDS]
    if unknown or not folds:
        raise SettingsError(f"The named regions have the folds 1 to 9 for training, not {list(folds)}.")
    return read_named_regions(root, folds)


def held_out_photos(root: Path) -> frozenset[str]:
    """Keys of the photos of fold 0, which no stage trains on; compare them with `photo_key`.

    Returns:
        The keys; none where the data folder has no named regions.

    Raises:
        DataError: the file is damaged.
    """
    if not (root / FOLDER).is_dir():
        return frozenset()
    return frozenset(photo_key(photo.name) for photo in read_named_regions(root, (HELD_OUT_FOLD,)))


def refuse_held_out(photo_paths: Iterable[str], root: Path) -> None:
    """Check that nothing of fold 0 is trained on.

    Args:
        photo_paths: of training photos, below the data folder; empty ones lie elsewhere.
        root: the data folder.

    Raises:
        DataError: a photo is of fold 0; names the first one.
    """
    paths = {path for path in photo_paths if path}
    held_out = held_out_photos(root) if paths else frozenset()
    found = sorted(path for path in paths if photo_key(path) in held_out)
    if found:
        more = f" and {len(found) - 1:,} more photos" if len(found) > 1 else ""
        raise DataError(
            f"The pairs hold {found[0]}{more} of fold 0 of the named regions, which is never trained on: "
            "write the pairs again with --leave-out-fold-0."
        )


def photo_key(path: Path | str) -> str:
    """Key of a photo: the two COCO folders hold the same photos under the same file names.

    >>> photo_key("coco_captions/images/000000000139.jpg")
    'coco/000000000139.jpg'
    >>> photo_key(Path("/data/flickr8k/images/1.jpg"))
    'flickr8k/1.jpg'
    """
    parts = Path(path).parts
    folder = next((part for part in reversed(parts[:-1]) if part != "images"), "")
    if any(part in ("coco_captions", "coco_subset") for part in parts):
        folder = "coco"
    return f"{folder}/{parts[-1]}"


def inherit_names(photo: NamedPhoto, least_iou: float = INHERIT_IOU) -> NamedPhoto:
    """Give unnamed proposals the names of the named region of the photo that they meet best.

    Args:
        photo: as it was read.
        least_iou: the two must overlap by more than this; 1 = nothing inherits.

    Raises:
        DataError: a run-length code does not fit the photo.
    """
    named, unnamed = photo.named(), [region for region in photo.regions if region.names is None]
    if not named or not unnamed or least_iou >= 1:
        return photo
    codes = [[region.coco_form() for region in some] for some in (unnamed, named)]
    overlap = np.asarray(coco_mask.iou(*codes, [0] * len(named)))  # (unnamed, named)
    best = overlap.argmax(axis=1)
    heirs = {
        id(region): named[nearest]
        for region, row, nearest in zip(unnamed, overlap, best, strict=True)
        if row[nearest] > least_iou
    }
    regions = [
        replace(region, names=heir.names, part_of=heir.part_of, inherited=True)
        if (heir := heirs.get(id(region)))
        else region
        for region in photo.regions
    ]
    return replace(photo, regions=tuple(regions))


def _photo(line: str, root: Path, where: str, folds: Collection[int] | None) -> NamedPhoto | None:
    """The photo of a line; None if it belongs to another fold."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); restore the file.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object; restore the file.")
    where = f"{where}, photo {quoted(str(row.get('photo', '?')), 200)}"
    _refuse_unknown(row, _PHOTO_FIELDS, where)
    try:
        name, fold = str(row["photo"]), int(row["fold"])
        if folds is not None and fold not in folds:
            return None
        width, height = (int(side) for side in row["size"])
        regions = tuple(_region(one, (height, width), where) for one in row["regions"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be understood ({error})"
        raise DataError(f"{where} {what}; restore the file.") from None
    try:
        source = photo_at(root, name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return NamedPhoto(name, fold, (height, width), regions, source)


def _region(row: dict[str, Any], size: tuple[int, int], where: str) -> NamedRegion:
    _refuse_unknown(row, _REGION_FIELDS, where)
    names = None if "names" not in row else _words(row["names"])
    return NamedRegion(
        str(row["rle"]), size, float(row["quality"]), names, _words(row.get("part_of", ())), where
    )


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"a list of names is needed, not {value!r}")
    return tuple(value)


def _refuse_unknown(row: dict[str, Any], known: set[str], where: str) -> None:
    for field in row:
        if field not in known:
            allowed = ", ".join(sorted(known))
            raise DataError(f"{where} has the unknown field {quoted(field)}; known are {allowed}.")
