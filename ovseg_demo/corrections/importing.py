"""Labels of files, ours or anybody's, as corrections of their photo.

What is opened shows again as it was: pixels that a file leaves without a label are unassigned, by a first
correction over the whole photo, which a person may take away to have them named anew.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg_demo.corrections.corrected_region import (
    MAX_CODE_BYTES,
    MAX_CORRECTIONS,
    CorrectedRegion,
    check_count,
    check_size,
    correction_name,
    corrections_from_json,
)
from ovseg_demo.corrections.rasterising import filled
from ovseg_demo.errors import CorrectionError, quoted

Size = tuple[int, int]
Corrections = tuple[CorrectedRegion, ...]
SizedRegion = tuple[int, CorrectedRegion]

MAX_FILE_BYTES = 50_000_000
"""Most bytes of a label file."""
MAX_CORNERS = 500_000
"""Most corners of all polygons of a photo."""
IGNORED = 255
"""Value of label maps where the class is unknown."""
OWN_PIECE = 0.001
"""A piece of a label map with a larger share of the photo is a region of its own."""


def read_corrections(path: str | Path, size: Size, *, photo_name: str = "") -> Corrections:
    """Open a file as corrections of a photo.

    Args:
        path: `corrections.json`, `result.json` or `coco.json` of ours, COCO's JSON of anybody, or a label map
            as PNG with `classes.json` beside it.
        size: height and width of the photo.
        photo_name: file name of the photo, which finds it among several images of a COCO file.

    Raises:
        CorrectionError: the file cannot be read, is of another photo, or is no label file.
    """
    path = Path(path)
    content = _bytes_of(path)
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        classes = path.with_name("classes.json")
        return corrections_from_label_map(content, _json_of(_bytes_of(classes), classes.name), size)
    return corrections_from_content(_json_of(content, path.name), size, photo_name=photo_name)


def find_corrections(place: Path, photo: Path) -> Path | None:
    """The label file of a photo: `place` itself, or what a folder has for it; None if it has nothing.

    A folder holds `<photo>.json`, or what a run wrote: `<photo>/` with corrections.json, coco.json or
    label_map.png, or these files themselves.
    """
    if not place.is_dir():
        return place
    names = ("corrections.json", "coco.json", "label_map.png")
    wanted = [place / f"{photo.stem}.json", *(place / photo.stem / name for name in names)]
    return next((path for path in (*wanted, *(place / name for name in names)) if path.is_file()), None)


def corrections_from_content(content: Any, size: Size, *, photo_name: str = "") -> Corrections:
    """The same from parsed JSON: corrections, a result with corrections, or COCO's.

    Raises:
        CorrectionError: as `read_corrections`.
    """
    if isinstance(content, dict) and "annotations" in content:
        return corrections_from_coco(content, size, photo_name=photo_name)
    if isinstance(content, dict) and isinstance(content.get("settings"), dict):
        found = content["settings"].get("corrections")
        if found is None:
            raise CorrectionError("This result has no corrections; open its coco.json or label_map.png.")
        return corrections_from_json(found, size)
    return corrections_from_json(content, size)


# --- COCO -----------------------------------------------------------------------------------------------


def corrections_from_coco(
    content: Any, size: Size, *, photo_name: str = "", rest_unassigned: bool = True
) -> Corrections:
    """Annotations of COCO's instance format, large ones first, so that small ones lie on top.

    Args:
        content: parsed JSON; masks as polygons or as run lengths, compressed or not.
        size: height and width of the photo.
        photo_name: finds the photo among several images.
        rest_unassigned: pixels without an annotation become unassigned; else they stay as they are found.

    Raises:
        CorrectionError: it is no such file, has no image of this photo, or is damaged.
    """
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise CorrectionError(
            "A COCO file holds the lists images, annotations and categories; choose another."
        )
    try:
        image_id = _image_of(content["images"], size, photo_name)
        names = {one["id"]: one["name"] for one in content["categories"]}
        own = [one for one in content["annotations"] if one["image_id"] == image_id]
        check_count(len(own))
        regions = [r for one in own if (r := _sized(_coco_mask(one, size), _category(names, one)))]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorrectionError(
            f"The COCO file is damaged ({type(error).__name__}: {str(error)[:80]}); export it again."
        ) from None
    return _listed(regions, size, rest_unassigned)


def _image_of(images: list[Any], size: Size, photo_name: str) -> Any:
    """Id of the image that is the photo: the only one, the one of its name, or the only one of its size."""
    stem = Path(photo_name).stem.casefold()
    named = [one for one in images if stem and Path(str(one.get("file_name", ""))).stem.casefold() == stem]
    fitting = [one for one in images if (one.get("height"), one.get("width")) == size]
    found = images if len(images) == 1 else named or fitting
    if len(found) != 1:
        raise CorrectionError(
            f"The COCO file has {len(images):,} images and {len(found)} of them may be this photo"
            f"{' ' + quoted(photo_name) if photo_name else ''}; give a file with this photo's name."
        )
    height, width = found[0].get("height"), found[0].get("width")
    if not (isinstance(height, int) and isinstance(width, int)):
        raise ValueError("an image without height and width")
    check_size((height, width), size)
    return found[0]["id"]


def _category(names: Mapping[Any, Any], annotation: Mapping[str, Any]) -> str:
    category = annotation["category_id"]
    if category not in names:
        raise CorrectionError(f"The COCO file has no category {quoted(category)}; export it again.")
    # A bar would part synonyms.
    return correction_name(str(names[category]).replace("|", "/"))


def _coco_mask(annotation: Mapping[str, Any], size: Size) -> npt.NDArray[np.bool_]:
    form = annotation.get("segmentation")
    if isinstance(form, dict):
        own, counts = form["size"], form["counts"]
        check_size((own[0], own[1]), size)
        if isinstance(counts, list):
            return _from_runs(counts, size)
        return CorrectedRegion(counts, size, None).mask if counts else np.zeros(size, dtype=np.bool_)
    if not isinstance(form, list) or not form:
        raise CorrectionError(
            f"Annotation {quoted(annotation.get('id'))} of the COCO file has no mask, maybe only a box; "
            "export masks."
        )
    rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in form]
    if sum(map(len, rings)) > MAX_CORNERS or not all(np.isfinite(ring).all() for ring in rings):
        raise ValueError("polygons of too many corners, or none that are numbers")
    return filled([ring for ring in rings if len(ring) >= 3], size)


def _from_runs(counts: list[Any], size: Size) -> npt.NDArray[np.bool_]:
    """COCO's run lengths that are not compressed."""
    runs = np.asarray(counts, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError("run lengths that do not fit the photo")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(inside.reshape(size[1], size[0]).T)


# --- label maps -----------------------------------------------------------------------------------------


def corrections_from_label_map(
    png: bytes, classes: Any, size: Size, *, rest_unassigned: bool = True
) -> Corrections:
    """A label map, each larger piece of a class a region of its own.

    Args:
        png: one number a pixel: palette, greyscale of 8 or 16 bits. 0 is unassigned if no class has it, and
            255 is left as it is found if no class has it.
        classes: our `classes.json` (objects with "index" or "id", and "name"), an object of names by number,
            or a list of names, the first of which belongs to 0.
        size: height and width of the photo.
        rest_unassigned: unassigned pixels stay so; else they are named anew.

    Raises:
        CorrectionError: it is no label map, is of another photo, or a number has no name.
    """
    labels = _label_map(png, size)
    names = _names_by_number(classes)
    used = np.flatnonzero(np.bincount(labels.ravel()))
    regions: list[SizedRegion] = []
    open_pixels = np.zeros(size, dtype=np.bool_)
    for value in (int(v) for v in used):
        if names.get(value) is None:
            if value not in (0, IGNORED) and value not in names:
                raise CorrectionError(f"The label map's number {value} has no name in classes.json; add it.")
            if value == IGNORED:
                open_pixels = labels == value
            continue
        name = correction_name(str(names[value]).replace("|", "/"))
        regions += [r for mask in _pieces(labels == value) if (r := _sized(mask, name))]
        check_count(len(regions))
    return _listed(regions, size, rest_unassigned, open_pixels)


def _label_map(png: bytes, size: Size) -> npt.NDArray[np.int64]:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            # The size is in the head: a picture of another size is not decoded.
            check_size((picture.height, picture.width), size)
            if picture.mode not in ("P", "L", "I;16", "I", "1"):
                raise CorrectionError(
                    f"A label map has one number a pixel and this picture has {picture.mode}; export numbers."
                )
            labels = np.asarray(picture).astype(np.int64)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise CorrectionError(f"The label map cannot be read ({str(error)[:80]}); export it again.") from None
    if labels.min() < 0 or labels.max() > np.iinfo(np.uint16).max:
        raise CorrectionError("The numbers of a label map lie from 0 to 65,535; export it again.")
    return labels


def _names_by_number(classes: Any) -> dict[int, str | None]:
    try:
        if isinstance(classes, dict):
            return {int(number): name for number, name in classes.items()}
        if isinstance(classes, list) and all(isinstance(one, str) for one in classes):
            return dict(enumerate(classes))
        return {int(one["index"] if "index" in one else one["id"]): one["name"] for one in classes}
    except (LookupError, TypeError, ValueError):
        raise CorrectionError(
            'Classes are a list of {"index": 1, "name": "dog"}, or names by number; export them again.'
        ) from None


def _pieces(mask: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.bool_]]:
    """Large connected pieces one by one, and all small ones together."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] > OWN_PIECE * mask.size]
    for k in large:
        yield parts == k
    yield mask & ~np.isin(parts, large)


# --- both -----------------------------------------------------------------------------------------------


def _sized(mask: npt.NDArray[np.bool_], name: str) -> SizedRegion | None:
    """A region with its number of pixels, encoded at once: many masks of a large photo fill the memory."""
    area = int(np.count_nonzero(mask))
    return (area, CorrectedRegion.of(mask, name)) if area else None


def _listed(
    regions: list[SizedRegion],
    size: Size,
    rest_unassigned: bool,
    open_pixels: npt.NDArray[np.bool_] | None = None,
) -> Corrections:
    rest: list[CorrectedRegion] = []
    if rest_unassigned:
        whole = np.ones(size, dtype=np.bool_) if open_pixels is None else ~open_pixels
        if whole.any():
            rest = [CorrectedRegion.of(whole, None)]
    listed = (*rest, *(region for _, region in sorted(regions, key=lambda one: -one[0])))
    if len(listed) > MAX_CORRECTIONS or sum(len(one.counts) for one in listed) > MAX_CODE_BYTES:
        raise CorrectionError(
            f"The labels have {len(regions):,} regions or outlines too fine to keep; open fewer of them."
        )
    return listed


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CorrectionError(
            f"{quoted(path, 200)} cannot be read ({error.strerror}); check the path."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise CorrectionError(
            f"{quoted(path.name)} has more than {MAX_FILE_BYTES:,} bytes; give the labels of one photo."
        )
    return content


def _json_of(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise CorrectionError(
            f"{quoted(name)} is neither JSON nor a PNG; give corrections.json, coco.json or a label map."
        ) from None
