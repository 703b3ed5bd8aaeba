"""Two kinds of picture for benchmarks, drawn with Pillow alone: stacked bars, and lines over two axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ovseg_demo.output.text_drawing import TextLine

Colour = tuple[int, int, int]

# Told apart by colour-blind eyes (Okabe and Ito), the same for stages and lines.
COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (110, 110, 110),
    (170, 150, 20),
)
_INK, _FAINT, _LINE, _PAPER = (28, 31, 36), (98, 104, 114), (222, 225, 230), (255, 255, 255)
_TEXT, _TITLE, _MARGIN, _WIDTH = 22, 30, 36, 1200


@dataclass(frozen=True)
class Bars:
    """One bar per row, made of parts."""

    title: str
    below: str
    """A line under the title: of what, on what."""
    parts: Sequence[str]
    rows: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Lines:
    """Points joined by lines, one colour per name; axes are logarithmic where asked for."""

    title: str
    below: str
    x: str
    y: str
    points: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False


def draw_bars(bars: Bars, path: Path) -> None:
    """Horizontal stacked bars with their sums beside them."""
    row, left, right = 54, 200, 130
    top = _MARGIN + 2 * _TITLE + 3 * _TEXT
    picture, draw = _sheet(bars.title, bars.below, top + row * len(bars.rows) + _MARGIN)
    _legend(draw, bars.parts, _MARGIN + 2 * _TITLE + 1.2 * _TEXT)
    longest = max((sum(values) for values in bars.rows.values()), default=0.0) or 1.0
    scale = (_WIDTH - left - right) / longest
    for number, (name, values) in enumerate(bars.rows.items()):
        y, x = top + number * row, float(left)
        label = TextLine(name, 0, _TEXT)
        label.draw(draw, left - 14 - label.width, y + row / 2, _INK)
        for part, value in enumerate(values):
            end = x + value * scale
            if end - x >= 0.5:
                draw.rectangle((x, y + 10, end, y + row - 10), fill=_colour(part))
            x = end
        TextLine(f"{sum(values):.1f} s", 0, _TEXT).draw(draw, x + 10, y + row / 2, _INK)
    _save(picture, path)


def draw_lines(lines: Lines, path: Path, height: int = 800) -> None:
    """A line chart with its legend."""
    picture, draw = _sheet(lines.title, lines.below, height)
    _legend(draw, list(lines.points), _MARGIN + 2 * _TITLE + 1.2 * _TEXT)
    every = [point for points in lines.points.values() for point in points]
    across = _Axis([x for x, _ in every], lines.log_x, 130.0, float(_WIDTH - _MARGIN))
    up = _Axis([y for _, y in every], lines.log_y, height - 110.0, _MARGIN + 2 * _TITLE + 4.3 * _TEXT)
    for value in across.ticks:
        x, label = across.at(value), TextLine(f"{value:,g}", 0, 0.8 * _TEXT)
        draw.line((x, up.start, x, up.end), fill=_LINE, width=2)
        label.draw(draw, x - label.width / 2, up.start + _TEXT, _FAINT)
    for value in up.ticks:
        y, label = up.at(value), TextLine(f"{value:,g}", 0, 0.8 * _TEXT)
        draw.line((across.start, y, across.end, y), fill=_LINE, width=2)
        label.draw(draw, across.start - 12 - label.width, y, _FAINT)
    for number, points in enumerate(lines.points.values()):
        places = [(across.at(x), up.at(y)) for x, y in sorted(points)]
        draw.line(places, fill=_colour(number), width=3)
        for x, y in places:
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=_colour(number))
    below = TextLine(lines.x, 0, _TEXT)
    below.draw(draw, (across.start + across.end - below.width) / 2, height - 45, _INK)
    TextLine(lines.y, 0, _TEXT).draw(draw, _MARGIN, up.end - 1.2 * _TEXT, _INK)
    _save(picture, path)


class _Axis:
    """Values to pixels, with ticks at round numbers."""

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float) -> None:
        self.start, self.end, self._log = start, end, log
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if log:
            self.ticks = _round_log(max(low, 1e-9), max(high, 2e-9))
        else:
            self.ticks = _round_linear(min(low, 0.0), high if high > low else low + 1)
        self._low, self._high = (self._number(v) for v in (self.ticks[0], self.ticks[-1]))

    def at(self, value: float) -> float:
        """Where a value lies, in pixels."""
        share = (self._number(value) - self._low) / (self._high - self._low)
        return self.start + share * (self.end - self.start)

    def _number(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self._log else value


def _round_linear(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _round_log(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    every = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    first = max(i for i, v in enumerate(every) if v <= low * 1.0001)
    last = min((i for i, v in enumerate(every) if v >= high * 0.9999), default=len(every) - 1)
    return every[first : max(last, first + 1) + 1]


def _sheet(title: str, below: str, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (_WIDTH, int(height)), _PAPER)
    draw = ImageDraw.Draw(picture)
    TextLine(title, 0, _TITLE).draw(draw, _MARGIN, _MARGIN + _TITLE / 2, _INK)
    TextLine(below, 0, 0.85 * _TEXT).draw(draw, _MARGIN, _MARGIN + 1.7 * _TITLE, _FAINT)
    return picture, draw


def _legend(draw: ImageDraw.ImageDraw, names: Sequence[str], middle: float) -> None:
    x = float(_MARGIN)
    for number, name in enumerate(names):
        draw.rectangle((x, middle - 9, x + 26, middle + 9), fill=_colour(number))
        line = TextLine(name, 0, 0.9 * _TEXT)
        line.draw(draw, x + 34, middle, _INK)
        x += 62 + line.width


def _colour(number: int) -> Colour:
    return COLOURS[number % len(COLOURS)]


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    picture.save(temporary, format="PNG")
    temporary.replace(path)
