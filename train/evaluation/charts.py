"""A picture of every class's figure under each arm, drawn with Pillow alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ovseg_demo.output.text_drawing import TextLine, shorten
from train.core.files import write_whole

Colour = tuple[int, int, int]

# Told apart by colour-blind eyes and in grey as well: light to dark.
_ARM_COLOURS: tuple[Colour, ...] = (
    (160, 174, 192),
    (37, 99, 175),
    (214, 120, 34),
    (122, 62, 136),
    (30, 30, 30),
)
_INK, _FAINT, _LINE, _PAPER = (28, 31, 36), (98, 104, 114), (222, 225, 230), (255, 255, 255)

# Pixels.
_TEXT, _TITLE, _BAR, _GAP, _MARGIN = 22, 30, 16, 14, 32
_NAME_WIDTH, _BARS_WIDTH, _VALUE_WIDTH = 300, 420, 80
_ROWS_PER_COLUMN = 60
_LONGEST_NAME = 26


@dataclass(frozen=True)
class Bar:
    """One value in percent and, where it is known, the interval around it."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One class: a bar per arm, None where there is nothing to show."""

    name: str
    bars: tuple[Bar | None, ...]


def chart_of_report(report: Mapping[str, Any], path: Path) -> None:
    """Draw the classes of an evaluation, the best under the last arm first.

    With true masks a class's figure is the share of its regions that were named right, otherwise its IoU.

    Raises:
        OutputError: the file cannot be written.
    """
    arms = report["arms"]
    true_masks = report["settings"]["masks"] == "truth"
    figure, title = ("top1", "regions named right") if true_masks else ("iou", "IoU")
    names = next(iter(arms.values()))["classes"]
    rows = [Row(name, tuple(_bar(arm["classes"][name], figure) for arm in arms.values())) for name in names]
    shown = [row for row in rows if any(row.bars)]
    shown.sort(key=lambda row: -(row.bars[-1].value if row.bars[-1] else -1))
    left_out = f", {len(shown)} of {len(rows)} classes are in the photos" if len(shown) < len(rows) else ""
    chosen = report["settings"]
    subtitle = (
        f"{report['photos']} photos, masks {chosen['masks']}, merge {chosen['merge']}, "
        f"model {chosen['model']}{left_out}"
    )
    picture = draw_chart(f"{report['data_set']}: {title} per class, percent", subtitle, tuple(arms), shown)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())


def _bar(figures: Mapping[str, Any], figure: str) -> Bar | None:
    value = figures.get(figure)
    if value is None:
        return None
    low, high = figures["interval"] if figure == "iou" else (None, None)
    return Bar(value, None if low is None or high is None else (low, high))


def draw_chart(title: str, subtitle: str, arms: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Horizontal bars from 0 to 100, as many columns side by side as the classes need."""
    row_height = len(arms) * _BAR + _GAP
    columns = max(1, math.ceil(len(rows) / _ROWS_PER_COLUMN))
    per_column = math.ceil(len(rows) / columns)
    column_width = _NAME_WIDTH + _BARS_WIDTH + _VALUE_WIDTH + _MARGIN
    top = _MARGIN + 2 * _TITLE + 3 * _TEXT
    heading, below = TextLine(title, 0, _TITLE), TextLine(subtitle, 0, _TEXT)
    width = max(
        _MARGIN + columns * column_width, *(int(2 * _MARGIN + line.width) for line in (heading, below))
    )
    height = top + per_column * row_height + _TEXT + _MARGIN
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    heading.draw(draw, _MARGIN, _MARGIN + _TITLE / 2, _INK)
    below.draw(draw, _MARGIN, _MARGIN + 1.6 * _TITLE, _FAINT)
    _draw_legend(draw, arms, _MARGIN + 2 * _TITLE + _TEXT)
    for column in range(columns):
        some = rows[column * per_column : (column + 1) * per_column]
        left = _MARGIN + column * column_width
        _draw_scale(draw, left + _NAME_WIDTH, top, len(some) * row_height)
        for number, row in enumerate(some):
            _draw_row(draw, row, left, top + number * row_height + _GAP / 2)
    return picture


def _draw_legend(draw: ImageDraw.ImageDraw, arms: Sequence[str], middle: float) -> None:
    x = float(_MARGIN)
    for number, arm in enumerate(arms):
        draw.rectangle((x, middle - _BAR / 2, x + 2 * _BAR, middle + _BAR / 2), fill=_colour(number))
        line = TextLine(arm, number + 1, _TEXT)
        line.draw(draw, x + 2.5 * _BAR, middle, _INK)
        x += 4.5 * _BAR + line.width


def _draw_scale(draw: ImageDraw.ImageDraw, left: int, top: int, height: int) -> None:
    for percent in range(0, 101, 25):
        x = left + _BARS_WIDTH * percent / 100
        draw.line((x, top, x, top + height), fill=_LINE, width=2)
        line = TextLine(str(percent), 0, 0.8 * _TEXT)
        line.draw(draw, x - line.width / 2, top + height + _TEXT / 2, _FAINT)


def _draw_row(draw: ImageDraw.ImageDraw, row: Row, left: int, top: float) -> None:
    middle = top + len(row.bars) * _BAR / 2
    name = TextLine(shorten(row.name, _LONGEST_NAME), 0, _TEXT)
    name.draw(draw, left + _NAME_WIDTH - 12 - name.width, middle, _INK)
    zero = left + _NAME_WIDTH
    for number, bar in enumerate(row.bars):
        y = top + number * _BAR
        if bar is None:
            continue
        end = zero + _BARS_WIDTH * bar.value / 100
        draw.rectangle((zero, y + 1, max(end, zero + 1), y + _BAR - 2), fill=_colour(number))
        reach = end
        if bar.interval:
            low, high = (zero + _BARS_WIDTH * value / 100 for value in bar.interval)
            draw.line((low, y + _BAR / 2, high, y + _BAR / 2), fill=_INK, width=2)
            reach = max(end, high)
        TextLine(f"{bar.value:.0f}", 0, 0.75 * _TEXT).draw(draw, reach + 8, y + _BAR / 2, _FAINT)


def _colour(number: int) -> Colour:
    return _ARM_COLOURS[number % len(_ARM_COLOURS)]
