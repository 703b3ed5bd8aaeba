"""The log of a training run, and its loss and accuracy as a picture, drawn with Pillow alone."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ovseg_demo.output.text_drawing import TextLine
from train.core.files import write_whole
from train.data.sources import DataError

Log = list[dict[str, float]]
Box = tuple[int, int, int, int]
LOG = "log.jsonl"
PANELS = (("loss", "loss"), ("top1", "regions whose noun is on top of the bank, percent"))
_COLOURS = ((37, 99, 175), (214, 120, 34), (60, 140, 80), (122, 62, 136))
_INK, _FAINT, _LINE, _PAPER = (28, 31, 36), (98, 104, 114), (222, 225, 230), (255, 255, 255)
# Pixels.
_WIDTH, _HEIGHT, _MARGIN, _TEXT, _LEFT = 1200, 420, 40, 24, 90


def read_log(path: Path) -> Log:
    """The rows of a log; a last line that a kill cut short is left out.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: give the folder of a training run.")
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over the `window` values around each, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def draw_curves(logs: Mapping[str, Log], path: Path) -> None:
    """Two panels, loss above accuracy; every value faint and their running mean in colour.

    Raises:
        OutputError: the file cannot be written.
    """
    logs = {name: log for name, log in logs.items() if log}
    picture = Image.new("RGB", (_WIDTH, _MARGIN + len(PANELS) * (_HEIGHT + 2 * _MARGIN) + _TEXT), _PAPER)
    draw = ImageDraw.Draw(picture)
    x = float(_MARGIN)
    for number, name in enumerate(logs):
        draw.rectangle((x, _MARGIN - 8, x + 30, _MARGIN + 8), fill=_COLOURS[number % len(_COLOURS)])
        line = TextLine(name, number, _TEXT)
        line.draw(draw, x + 40, _MARGIN, _INK)
        x += 70 + line.width
    for number, (key, title) in enumerate(PANELS):
        top = _MARGIN + _TEXT + number * (_HEIGHT + 2 * _MARGIN) + _MARGIN
        _draw_panel(draw, logs, key, title, (_LEFT, top, _WIDTH - _MARGIN, top + _HEIGHT))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())


def _draw_panel(draw: ImageDraw.ImageDraw, logs: Mapping[str, Log], key: str, title: str, box: Box) -> None:
    left, top, right, bottom = box
    TextLine(title, 0, _TEXT).draw(draw, left, top - _TEXT, _INK)
    steps = [[row["step"] for row in log if key in row] for log in logs.values()]
    values = [np.array([row[key] for row in log if key in row]) for log in logs.values()]
    last = max((max(some) for some in steps if some), default=1)
    known = np.concatenate(values) if values else np.zeros(1)
    low = min(0.0, float(known.min(initial=0)))
    high = max(float(np.percentile(known, 99.5)) if len(known) else 1.0, low + 1e-6)
    ticks = _round_steps(low, high)
    high = max(high, ticks[-1])

    def place(step: float, value: float) -> tuple[float, float]:
        across, up = step / last, (min(value, high) - low) / (high - low)
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in ticks:
        y = place(0, tick)[1]
        draw.line((left, y, right, y), fill=_LINE, width=2)
        text = TextLine(f"{tick:g}", 0, 0.8 * _TEXT)
        text.draw(draw, left - 10 - text.width, y, _FAINT)
    for tick in _round_steps(0, last):
        text = TextLine(f"{tick:g}", 0, 0.8 * _TEXT)
        text.draw(draw, place(tick, low)[0] - text.width / 2, bottom + 0.8 * _TEXT, _FAINT)
    for number, (at, found) in enumerate(zip(steps, values, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        pale = tuple(round(0.75 * 255 + 0.25 * c) for c in colour)
        mean = smoothed(found, max(len(found) // 50, 1))
        for line, ink, width in ((found, pale, 1), (mean, colour, 3)):
            points = [place(step, float(value)) for step, value in zip(at, line, strict=True)]
            if len(points) == 1:
                draw.ellipse(
                    (points[0][0] - 3, points[0][1] - 3, points[0][0] + 3, points[0][1] + 3), fill=ink
                )
            draw.line(points, fill=ink, width=width, joint="curve")


def _round_steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to just beyond `high`."""
    raw = (high - low) / about
    size = 10 ** np.floor(np.log10(raw))
    step = float(next(size * m for m in (1, 2, 5, 10) if size * m >= raw))
    first = np.floor(low / step)
    return [float((first + i) * step) for i in range(int(np.ceil(high / step) - first) + 1)]
