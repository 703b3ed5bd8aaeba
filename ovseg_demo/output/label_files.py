"""Labels for other programs: COCO, YOLO and GeoJSON files of a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg_demo.output.mask_formats import Polygon, encode_rle, keyhole, polygons, signed_area, simplify
from ovseg_demo.result import ClassResult, Segmentation

__all__ = [
    "ExportSource",
    "as_json",
    "coco_files",
    "coco_polygon_files",
    "geojson_files",
    "stem_of",
    "yolo_files",
]

_STRIP = 128
"""Rows or columns that are read together when the pieces are located."""


@dataclass(frozen=True, eq=False)
class Piece:
    """The pixels of one region and class; each labelled pixel is in exactly one piece."""

    class_index: int
    region_id: int
    confidence: float
    left: int
    top: int
    corrected: bool
    mask: npt.NDArray[np.bool_]
    """(h, w) of its box, whose upper left pixel is (left, top)."""

    @cached_property
    def area_px(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    @cached_property
    def polygons(self) -> tuple[Polygon, ...]:
        """Its connected parts in the photo's pixels."""
        return tuple(polygons(self.mask, self.left, self.top))


@dataclass(frozen=True, eq=False)
class ExportSource:
    """A result, and its pieces, which are cut out and traced once for all formats of an export."""

    seg: Segmentation
    check: Callable[[], None] = lambda: None
    """Called between two parts of the work; raises to end it."""

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """All pieces, by class and region."""
        return tuple(_pieces(self.seg, self.check))


def _pieces(seg: Segmentation, check: Callable[[], None]) -> Iterator[Piece]:
    pairs = seg.label_map.astype(np.uint32)
    pairs <<= 16
    pairs |= seg.region_map
    rows, columns = _extents(pairs, check), _extents(pairs.T, check)
    confidences = {r.id: r.confidence for r in seg.regions}
    corrected = {r.id for r in seg.regions if r.corrected}
    for pair in sorted(rows):
        check()
        index, region_id = pair >> 16, pair & 0xFFFF
        if not index:
            continue
        (y0, y1), (x0, x1) = rows[pair], columns[pair]
        mask = pairs[y0:y1, x0:x1] == pair
        inner_rows, inner_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(inner_rows[0]), int(inner_columns[0])
        mask = mask[top : int(inner_rows[-1]) + 1, left : int(inner_columns[-1]) + 1].copy()
        confidence = confidences.get(region_id, seg.classes[index - 1].confidence)
        yield Piece(index, region_id, confidence, x0 + left, y0 + top, region_id in corrected, mask)


def _extents(pairs: npt.NDArray[np.uint32], check: Callable[[], None]) -> dict[int, tuple[int, int]]:
    """For each value the rows between which it occurs, to the strip; each row is read only once."""
    found: dict[int, tuple[int, int]] = {}
    for start in range(0, len(pairs), _STRIP):
        check()
        end = min(start + _STRIP, len(pairs))
        for pair in _distinct(pairs[start:end]):
            found[pair] = found.get(pair, (start, end))[0], end
    return found


def _distinct(strip: npt.NDArray[np.uint32]) -> list[int]:
    """The values of a strip; only the first of each run of one value is sorted."""
    flat = strip.ravel()
    heads = flat[1:][flat[1:] != flat[:-1]]
    values: list[int] = np.unique(np.concatenate([flat[:1], heads])).tolist()
    return values


def coco_files(source: ExportSource, photo_name: str) -> dict[str, bytes]:
    """COCO instances: one annotation for each region that shows, masks as compressed run lengths."""
    width, height = source.seg.size

    def run_lengths(piece: Piece) -> dict[str, Any]:
        counts = encode_rle(piece.mask, (height, width), piece.left, piece.top)
        return {"size": [height, width], "counts": counts}

    return {"coco.json": as_json(_coco(source, photo_name, run_lengths))}


def coco_polygon_files(source: ExportSource, photo_name: str) -> dict[str, bytes]:
    """COCO instances with polygons, for programs that read no run lengths, such as Label Studio.

    The format has no holes; a cut of zero width joins them to the outer ring. Outlines are simplified.
    """

    def outlines(piece: Piece) -> list[list[float]]:
        rings = (keyhole(_simplified(polygon)) for polygon in piece.polygons)
        return [ring.ravel().tolist() for ring in rings]

    return {"coco_polygons.json": as_json(_coco(source, photo_name, outlines), indent=None)}


def _coco(source: ExportSource, photo_name: str, segmentation: Callable[[Piece], Any]) -> dict[str, Any]:
    """COCO's instances with masks in the form that `segmentation` gives them."""
    seg = source.seg
    width, height = seg.size
    annotations = []
    for number, piece in enumerate(source.pieces, start=1):
        source.check()
        box_height, box_width = piece.mask.shape
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": piece.class_index,
                "segmentation": segmentation(piece),
                "area": piece.area_px,
                "bbox": [piece.left, piece.top, box_width, box_height],
                "iscrowd": 0,
                "score": round(piece.confidence, 5),
                "region_id": piece.region_id,
                "corrected": piece.corrected,
            }
        )
    return {
        "info": {"description": "ovseg-demo", "models": dict(seg.models), "settings": dict(seg.settings)},
        "licenses": [],
        "images": [{"id": 1, "width": width, "height": height, "file_name": photo_name}],
        "annotations": annotations,
        "categories": [{"id": c.index, "name": c.name, "supercategory": ""} for c in seg.classes],
    }


def yolo_files(source: ExportSource, photo_name: str) -> dict[str, bytes]:
    """YOLO segmentation: `class x y x y ...` as shares of width and height, a line for each connected part.

    The format has no holes; a cut of zero width joins them to the outer ring.
    """
    seg = source.seg
    scale = np.array(seg.size, np.float64)
    lines = []
    for piece in source.pieces:
        source.check()
        for polygon in piece.polygons:
            ring = keyhole(_simplified(polygon))
            if len(ring) >= 3:
                numbers = " ".join(f"{value:.6g}" for value in (ring / scale).ravel())
                lines.append(f"{piece.class_index - 1} {numbers}")
    names = "".join(f"  {c.index - 1}: {json.dumps(c.name, ensure_ascii=False)}\n" for c in seg.classes)
    yaml = f"path: .\ntrain: images\nval: images\nnames:\n{names}"
    return {
        f"yolo/labels/{stem_of(photo_name)}.txt": "".join(f"{line}\n" for line in lines).encode(),
        "yolo/data.yaml": yaml.encode("utf-8", "replace"),
    }


def _simplified(polygon: Polygon, tolerance_px: float = 0.75) -> Polygon:
    """Remove the steps of single pixels; a ring that would vanish stays unchanged."""
    outer = simplify(polygon.outer, tolerance_px)
    if len(outer) < 3 or signed_area(outer) <= 0:
        return polygon
    holes = (simplify(hole, tolerance_px) for hole in polygon.holes)
    return Polygon(outer, tuple(hole for hole in holes if len(hole) >= 3 and signed_area(hole) < 0))


def geojson_files(source: ExportSource, photo_name: str) -> dict[str, bytes]:
    """GeoJSON in pixel coordinates: x to the right and y down from the photo's upper left corner."""
    seg = source.seg
    features = []
    for piece in source.pieces:
        source.check()
        c = seg.classes[piece.class_index - 1]
        coordinates = [
            [_closed(ring) for ring in (polygon.outer, *polygon.holes)] for polygon in piece.polygons
        ]
        features.append(
            {
                "type": "Feature",
                "properties": _properties(c, piece),
                "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
            }
        )
    width, height = seg.size
    content = {
        "type": "FeatureCollection",
        "photo": {"file_name": photo_name, "width": width, "height": height, "coordinates": "pixels, y down"},
        "features": features,
    }
    return {"regions.geojson": as_json(content, indent=None)}


def _properties(c: ClassResult, piece: Piece) -> dict[str, Any]:
    return {
        "class": c.name,
        "class_index": c.index,
        "region_id": piece.region_id,
        "confidence": round(piece.confidence, 5),
        "area_px": piece.area_px,
        "corrected": piece.corrected,
        "colour": "#{:02x}{:02x}{:02x}".format(*c.colour),
    }


def _closed(ring: npt.NDArray[np.float64]) -> list[list[int]]:
    corners: list[list[int]] = ring.astype(int).tolist()
    return [*corners, corners[0]]


def stem_of(photo_name: str) -> str:
    return Path(photo_name).stem or "photo"


def as_json(content: Any, indent: int | None = 1) -> bytes:
    text = json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=False)
    # A lone surrogate is no text in any encoding; everything else is written as it is.
    return (text + "\n").encode("utf-8", "replace")
