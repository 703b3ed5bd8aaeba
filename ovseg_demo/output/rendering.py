"""Pictures of a result: coloured regions with outlines and names, a legend, both arms side by side.

Only NumPy, OpenCV and Pillow are needed. Names are drawn as plain text. Outlines and names accompany colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ovseg_demo.output.label_spots import label_spots
from ovseg_demo.output.legend import PAPER, LegendEntry, heading_strip, legend, legend_strip
from ovseg_demo.output.text_drawing import TextLine, shorten
from ovseg_demo.result import UNASSIGNED, Comparison, Segmentation, percent

__all__ = ["overlay", "overlay_with_legend", "side_by_side"]

RGBImage = npt.NDArray[np.uint8]

_DIMMED = 0.78
"""Brightness of unassigned pixels, to distinguish them from regions."""

_DARK, _LIGHT = (16, 18, 22), (255, 255, 255)

_MAX_SHEET_SIDE = 4096
"""Longer side of each photo where both arms are on one sheet; more is wider than what screens show."""


def overlay(
    seg: Segmentation,
    *,
    opacity: float = 0.55,
    outlines: bool = True,
    labels: bool = True,
    check: Callable[[], None] = lambda: None,
) -> RGBImage:
    """Draw the classes in colour over the photo.

    Args:
        seg: the result to show.
        opacity: of the colours, 0 (photo only) to 1 (colours only).
        outlines: draw a dark line with light ones beside it where classes meet.
        labels: write the class names on their regions where they fit.
        check: called between two parts of the work; raises to end it.

    Returns:
        (H, W, 3) uint8 RGB, the size of the photo.
    """
    colours = np.zeros((len(seg.classes) + 1, 3), np.float32)
    for c in seg.classes:
        colours[c.index] = c.colour
    alpha = np.full(len(seg.classes) + 1, opacity, np.float32)
    alpha[UNASSIGNED] = (1 - _DIMMED) * min(opacity / 0.5, 1.0)
    picture = np.empty_like(seg.image)
    for rows in _strips(seg.image.shape):
        check()
        a = alpha[seg.label_map[rows]][..., None]
        picture[rows] = (seg.image[rows] * (1 - a) + colours[seg.label_map[rows]] * a + 0.5).astype(np.uint8)
    if outlines:
        _draw_outlines(picture, seg.label_map, check)
    check()
    return _draw_names(picture, seg) if labels else picture


def overlay_with_legend(seg: Segmentation, check: Callable[[], None] = lambda: None) -> RGBImage:
    """The overlay with its legend below; at least 480 pixels wide, so that the words are legible.

    Args:
        seg: the result to show.
        check: as in `overlay`.
    """
    width = max(seg.size[0], 480)
    return _stack([_centred(overlay(seg, check=check), width), legend(seg, width=width)])


def side_by_side(comparison: Comparison, check: Callable[[], None] = lambda: None) -> RGBImage:
    """The first arm on the left, the second on the right, one legend and the verdict below.

    Args:
        comparison: the two arms. Larger photos are reduced to 4096 pixels on their longer side.
        check: as in `overlay`.

    Returns:
        (h, w, 3) uint8 RGB, a little wider than two photos; at least 960 pixels wide.
    """
    arms = [_reduced(arm, _MAX_SHEET_SIDE) for arm in comparison.arms]
    width = max(arms[0].size[0], 474)
    gap = max(8, width // 80)
    headings = [f"{arm.arm} CLIP" for arm in arms]
    columns = [
        _stack([heading_strip(heading, width), _centred(overlay(arm, check=check), width)])
        for heading, arm in zip(headings, arms, strict=True)
    ]
    between = np.full((len(columns[0]), gap, 3), PAPER, np.uint8)
    top = np.concatenate([columns[0], between, columns[1]], axis=1)
    shown = {c.index for arm in arms for c in arm.found}
    entries = [
        LegendEntry(a.colour, a.name, f"{percent(v.area_fraction)} → {percent(a.area_fraction)}", a.index)
        for v, a in zip(arms[0].classes, arms[1].classes, strict=True)
        if a.index in shown
    ]
    missing = [c for c in arms[1].classes if c.index not in shown]
    return _stack([top, legend_strip(entries, missing, [comparison.verdict], top.shape[1])])


# --- names on regions -----------------------------------------------------------------------------------


def _draw_names(picture: RGBImage, seg: Segmentation) -> RGBImage:
    height, width = picture.shape[:2]
    largest = min(64.0, max(13.0, max(height, width) / 38))
    smallest = min(largest, max(11.0, max(height, width) / 75))
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas, "RGBA")
    taken: list[tuple[float, float, float, float]] = []
    for spot in label_spots(seg):
        c = seg.classes[spot.class_index - 1]
        text = shorten(c.name, 28)
        size = _fitting_size(
            text, c.index, 2.3 * spot.half_width * width, 2.3 * spot.half_height * height, largest, smallest
        )
        if size is None:
            continue
        box = _pill_box(text, c.index, size, spot.x * width, spot.y * height, width, height)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        _draw_pill(draw, box, TextLine(text, c.index, size), c.colour)
    return np.asarray(canvas)


def _fitting_size(
    text: str, index: int, room_w: float, room_h: float, largest: float, smallest: float
) -> float | None:
    """Largest font size in pixels at which the label fits its spot; None if the smallest is too large."""
    unit_w, unit_h = _pill_size(text, index, 100.0)
    size = min(largest, 100 * room_w / unit_w, 100 * room_h / unit_h)
    return size if size >= smallest else None


def _pill_size(text: str, index: int, size: float) -> tuple[float, float]:
    return TextLine(text, index, size).width + 1.75 * size, 1.5 * size


def _pill_box(
    text: str, index: int, size: float, x: float, y: float, width: int, height: int
) -> tuple[float, float, float, float]:
    w, h = _pill_size(text, index, size)
    left = min(max(x - w / 2, 2.0), max(2.0, width - w - 2))
    top = min(max(y - h / 2, 2.0), max(2.0, height - h - 2))
    return left, top, left + w, top + h


def _draw_pill(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: TextLine,
    colour: tuple[int, int, int],
) -> None:
    left, top, _, bottom = box
    middle, size = (top + bottom) / 2, text.size
    draw.rounded_rectangle(box, radius=(bottom - top) / 2, fill=(*_DARK, 205))
    dot = 0.27 * size
    centre = left + 0.72 * size
    draw.ellipse(
        (centre - dot, middle - dot, centre + dot, middle + dot),
        fill=(*colour, 255),
        outline=(*_LIGHT, 255),
        width=max(1, round(size / 14)),
    )
    text.draw(draw, left + 1.22 * size, middle, _LIGHT)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- outlines -------------------------------------------------------------------------------------------


def _draw_outlines(picture: RGBImage, label_map: npt.NDArray[np.uint16], check: Callable[[], None]) -> None:
    """Draw a dark line where classes meet and a light one on both sides of it, in place."""
    height = len(label_map)
    half = max(0.6, max(label_map.shape) / 1000)
    reach = 2 * half + 2
    # Rows around a strip whose edges reach into it; OpenCV counts a step of one pixel as 0.955.
    around = math.ceil(reach / 0.955) + 2
    for strip in _strips(label_map.shape):
        check()
        first, last = max(0, strip.start - around), min(height, strip.stop + around)
        edge = _edges(label_map[first:last])
        if not edge.any():
            continue
        away = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3)
        away = away[strip.start - first : strip.stop - first]
        rows, columns = np.nonzero(away < reach)
        distance = away[rows, columns][:, None]
        rows += strip.start
        light = 0.85 * np.clip(2 * half + 0.5 - distance, 0, 1)
        dark = 0.9 * np.clip(half + 0.5 - distance, 0, 1)
        pixels = picture[rows, columns].astype(np.float32)
        pixels += (np.array(_LIGHT, np.float32) - pixels) * light
        pixels += (np.array(_DARK, np.float32) - pixels) * dark
        picture[rows, columns] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _edges(label_map: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """The pixels beside one of another class."""
    edge = np.zeros(label_map.shape, np.bool_)
    across, down = label_map[:, 1:] != label_map[:, :-1], label_map[1:] != label_map[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


# --- sheets ---------------------------------------------------------------------------------------------


def _centred(picture: RGBImage, width: int) -> RGBImage:
    spare = width - picture.shape[1]
    if spare <= 0:
        return picture
    return np.pad(picture, ((0, 0), (spare // 2, spare - spare // 2), (0, 0)), constant_values=255)


def _reduced(seg: Segmentation, side: int) -> Segmentation:
    """The result with at most `side` pixels on the longer side of its photo, without its masks."""
    width, height = seg.size
    scale = side / max(width, height)
    if scale >= 1:
        return seg
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(seg.image, size, interpolation=cv2.INTER_AREA)
    labels, regions = (
        cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        for values in (seg.label_map, seg.region_map)
    )
    return replace(
        seg, image=np.asarray(image), label_map=np.asarray(labels), region_map=np.asarray(regions), masks=None
    )


def _stack(parts: Sequence[RGBImage]) -> RGBImage:
    return np.concatenate(list(parts), axis=0)


def _strips(shape: tuple[int, ...], pixels: int = 1 << 21) -> Iterator[slice]:
    """Bands of rows of about `pixels` each, which bound the memory of float copies."""
    rows = max(1, pixels // max(1, shape[1]))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)
