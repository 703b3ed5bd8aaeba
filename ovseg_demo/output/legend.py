"""The legend of a picture: swatch, name and area of each class, and the words that were not found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ovseg_demo.output.text_drawing import TextLine, shorten, wrap
from ovseg_demo.result import ClassResult, Segmentation, percent

__all__ = ["PAPER", "LegendEntry", "heading_strip", "legend", "legend_strip"]

RGBImage = npt.NDArray[np.uint8]

_INK, _FAINT, PAPER, _LINE = (28, 31, 36), (98, 104, 114), (255, 255, 255), (222, 225, 230)

_MAX_MISSING = 40
"""Number of words listed as not found; the others are counted."""


def legend(seg: Segmentation, *, width: int | None = None) -> RGBImage:
    """Swatch, name and area of each class that was found, and a line of the other names.

    Args:
        seg: the result to explain.
        width: of the strip in pixels; the photo's if not given.

    Returns:
        (h, width, 3) uint8 RGB.
    """
    entries = [LegendEntry(c.colour, c.name, percent(c.area_fraction), c.index) for c in seg.found]
    if seg.unassigned_fraction > 0:
        entries.append(LegendEntry(None, "unassigned", percent(seg.unassigned_fraction), 0))
    return legend_strip(entries, seg.not_found, [], width or seg.size[0])


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend."""

    colour: tuple[int, int, int] | None
    """Of the swatch; None for unassigned pixels."""
    name: str
    value: str
    """What stands behind the name, such as its share of the photo."""
    index: int
    """Number of the class; 0 for unassigned pixels."""


def legend_strip(
    entries: Sequence[LegendEntry], missing: Sequence[ClassResult], lines: Sequence[str], width: int
) -> RGBImage:
    """Draw a legend.

    Args:
        entries: one line each, in columns.
        missing: classes that were not found.
        lines: sentences below the entries.
        width: of the strip in pixels.

    Returns:
        (h, width, 3) uint8 RGB.
    """
    size = float(min(34, max(13, round(width / 60))))
    pad, row = round(1.1 * size), round(1.75 * size)
    usable = width - 2 * pad
    columns = max(1, min(len(entries), int(usable // (13 * size))))
    column = min(usable / columns, 22 * size)
    rows = -(-len(entries) // columns)
    if missing:
        names = ", ".join(TextLine(c.name, c.index, size).shown for c in missing[:_MAX_MISSING])
        more = f" and {len(missing) - _MAX_MISSING} more" if len(missing) > _MAX_MISSING else ""
        lines = [*lines, f"not found: {names}{more}"]
    wrapped = [part for line in lines for part in wrap(line, size, usable)]
    strip = Image.new("RGB", (width, rows * row + len(wrapped) * row + pad), PAPER)
    draw = ImageDraw.Draw(strip)
    for place, entry in enumerate(entries):
        # Filled column by column: the largest areas are in the first one.
        x, y = pad + (place // rows) * column, pad / 2 + (place % rows) * row
        _draw_entry(draw, entry, x, y + row / 2, column - 1.6 * size, size)
    for place, line in enumerate(wrapped):
        TextLine(line, 0, size).draw(draw, pad, pad / 2 + (rows + place + 0.5) * row, _FAINT)
    return np.asarray(strip)


def _draw_entry(
    draw: ImageDraw.ImageDraw, entry: LegendEntry, x: float, middle: float, width: float, size: float
) -> None:
    side = 0.95 * size
    draw.rounded_rectangle(
        (x, middle - side / 2, x + side, middle + side / 2),
        radius=side / 4,
        fill=entry.colour or PAPER,
        outline=_LINE if entry.colour is None else None,
        width=2,
    )
    value = TextLine(entry.value, 0, size)
    room = width - value.width - 2.6 * size
    name = entry.name
    while len(name) > 2 and TextLine(name, entry.index, size).width > room:
        name = shorten(name, len(name) - 1)
    ink = _INK if entry.colour else _FAINT
    TextLine(name, entry.index, size).draw(draw, x + 1.5 * size, middle, ink)
    value.draw(draw, x + width - value.width, middle, _FAINT)


def heading_strip(text: str, width: int) -> RGBImage:
    """A heading over a picture of `width` pixels, (h, width, 3) uint8 RGB."""
    size = float(min(40, max(14, round(width / 36))))
    strip = Image.new("RGB", (width, round(2.1 * size)), PAPER)
    TextLine(text, 0, size).draw(ImageDraw.Draw(strip), 0.4 * size, strip.height / 2, _INK)
    return np.asarray(strip)
