"""Masks in the formats of other programs: COCO run lengths and polygons.

Polygons follow the edges of pixels, so their area is the exact number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "Polygon",
    "decode_rle",
    "decode_run_lengths",
    "encode_rle",
    "keyhole",
    "polygons",
    "signed_area",
    "simplify",
]

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]
"""(N, 2) corners x, y in pixels, not closed: the first corner is not repeated."""


@dataclass(frozen=True)
class Polygon:
    """One connected piece of a mask: its outer ring and its holes."""

    outer: Ring
    """Signed area above zero."""
    holes: tuple[Ring, ...]
    """Signed area below zero."""


def encode_rle(mask: Mask, size: tuple[int, int] | None = None, left: int = 0, top: int = 0) -> str:
    """Encode a mask as COCO's compressed run lengths.

    Runs are counted down the columns and begin with zeros. From the fourth run on, the difference to the run
    two places before is written. Numbers are written low bits first, five bits a character.

    Args:
        mask: (h, w) bool, of a whole picture or of a box that holds all of the picture's set pixels.
        size: height and width of the picture; the mask's own by default.
        left: column of the picture at which the mask begins.
        top: row of the picture at which the mask begins.
    """
    height, width = size or mask.shape
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    padded[:, 1:-1] = mask.T
    columns, rows = np.nonzero(np.diff(padded, axis=1))
    turns = (columns + left) * height + rows + top
    # A run that reaches the bottom continues at the top of the next column.
    touching = 2 * np.flatnonzero(turns[1:-1:2] == turns[2::2])
    turns = np.delete(turns, np.concatenate([touching + 1, touching + 2]))
    ends = turns if len(turns) and turns[-1] == height * width else np.append(turns, height * width)
    runs = np.diff(ends, prepend=0).astype(np.int64)
    runs[3:] -= np.diff(ends, prepend=0).astype(np.int64)[1:-2]
    return "".join(_encode_number(int(run)) for run in runs)


def decode_rle(counts: str, size: tuple[int, int]) -> Mask:
    """Decode COCO's compressed run lengths to a (height, width) mask.

    Args:
        counts: from `encode_rle` or pycocotools.
        size: height and width of the picture.

    Raises:
        ValueError: the code is damaged, or is of a picture of another size.
    """
    height, width = size
    runs = decode_run_lengths(counts)
    if runs is None:
        raise ValueError("the run lengths are damaged")
    if runs.sum() != height * width:
        raise ValueError(f"the run lengths cover {runs.sum():,} pixels and not {width} x {height}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def decode_run_lengths(code: str) -> npt.NDArray[np.int64] | None:
    """The lengths of the runs of COCO's compressed code, background first; None if it is no such code.

    Each number is written in groups of five bits, low ones first, a sixth bit saying that more follow; from
    the fourth number on, the difference to the last but one is written.
    """
    codes = np.frombuffer(code.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = (codes & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff([*starts, len(codes)]))
    if place.max() > 9:
        return None
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * (place[last] + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if (runs < 0).any() else runs


def _encode_number(value: int) -> str:
    characters = []
    while True:
        chunk = value & 0x1F
        value >>= 5
        done = value == (-1 if chunk & 0x10 else 0)
        characters.append(chr(48 + (chunk if done else chunk | 0x20)))
        if done:
            return "".join(characters)


def polygons(mask: Mask, left: int = 0, top: int = 0) -> list[Polygon]:
    """The parts of a mask that are connected by edges (not by corners), each a valid polygon.

    Args:
        mask: (h, w) bool.
        left: column of the picture at which the mask begins.
        top: row of the picture at which the mask begins.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    found = []
    for part in range(1, count):
        x, y, width, height = (int(v) for v in stats[part][:4])
        piece = parts[y : y + height, x : x + width] == part
        offset = np.array([left + x, top + y], np.float64)
        rings = [ring + offset for ring in _rings(piece)]
        rings.sort(key=signed_area, reverse=True)
        found.append(Polygon(rings[0], tuple(rings[1:])))
    return found


def signed_area(ring: Ring) -> float:
    """Area inside the ring in pixels; its sign tells the direction."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _rings(piece: Mask) -> list[Ring]:
    """Corners of the border between pixels inside and outside, one ring for each closed line.

    Every edge has the inside on its right-hand side (x right, y down), so the outer ring has a positive
    signed area. Where two pixels touch at a corner only, the line continues along the other pixel: both
    belong to one piece, and no ring touches itself.
    """
    padded = np.pad(piece, 1)
    inside, stride = padded[1:-1, 1:-1], piece.shape[1] + 1
    following: dict[int, list[int]] = {}
    for neighbour, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        ys, xs = np.nonzero(inside & ~neighbour)
        starts, ends = (ys + y0) * stride + xs + x0, (ys + y1) * stride + xs + x1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            following.setdefault(start, []).append(end)
    rings = []
    while following:
        corners = _walk(following, stride)
        rings.append(np.array([(c % stride, c // stride) for c in corners], np.float64))
    return rings


def _walk(following: dict[int, list[int]], stride: int) -> list[int]:
    """Remove one closed line from `following` and return the corners at which it turns."""
    first = here = next(iter(following))
    step, first_step = 0, following[first][0] - first
    corners: list[int] = []
    while True:
        ways = following[here]
        # Of two ways on, the one to the left (against the clock) leads along the other pixel.
        to_the_left = {1: -stride, -stride: -1, -1: stride, stride: 1}.get(step)
        there = ways.pop(next((i for i, way in enumerate(ways) if way - here == to_the_left), 0))
        if not ways:
            del following[here]
        if there - here != step:
            corners.append(here)
        here, step = there, there - here
        if here == first:
            return corners if step != first_step else corners[1:]


def simplify(ring: Ring, tolerance_px: float) -> Ring:
    """Simplify a ring by Douglas and Peucker, with at most `tolerance_px` of deviation."""
    short = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance_px, True)[:, 0]
    return short.astype(np.float64)


def keyhole(polygon: Polygon) -> Ring:
    """One ring for formats without holes; a cut of zero width joins each hole to the outer ring."""
    ring = polygon.outer
    for hole in sorted(polygon.holes, key=lambda h: float(h[:, 0].min())):
        distance = ((ring[:, None] - hole[None]) ** 2).sum(axis=2)
        at, start = (int(v) for v in np.unravel_index(int(np.argmin(distance)), distance.shape))
        turned = np.concatenate([hole[start:], hole[: start + 1]])
        ring = np.concatenate([ring[: at + 1], turned, ring[at:]])
    return ring
