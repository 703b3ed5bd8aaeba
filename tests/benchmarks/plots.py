"""Two kinds of chart for benchmarks: stacked bars, and lines over two axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from train.evaluation.figures import FAINT, colour, new_figure, plain_axes, save_figure

_WIDTH = 1200
"""Pixels."""


@dataclass(frozen=True)
class Bars:
    """One bar per row, made of parts."""

    title: str
    below: str
    """A line under the title: of what, on what."""
    parts: Sequence[str]
    rows: Mapping[str, Sequence[float]]
    """Seconds of each part."""


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
    figure, axes = _sheet(bars.title, bars.below, 170 + 54 * len(bars.rows))
    plain_axes(axes, "x")
    axes.invert_yaxis()
    names, ends = list(bars.rows), np.zeros(len(bars.rows))
    for number, part in enumerate(bars.parts):
        values = np.array([row[number] for row in bars.rows.values()])
        drawn = axes.barh(names, values, 0.6, left=ends, color=colour(number), label=part)
        ends += values
    if names:
        axes.bar_label(drawn, [f"{end:.1f} s" for end in ends], padding=6)
        axes.margins(x=0.1)
    _finish(figure, path)


def draw_lines(lines: Lines, path: Path, height: int = 800) -> None:
    """A line chart with its legend."""
    figure, axes = _sheet(lines.title, lines.below, height)
    plain_axes(axes, "both")
    axes.set(xlabel=lines.x, ylabel=lines.y)
    for number, (name, points) in enumerate(lines.points.items()):
        x, y = zip(*sorted(points), strict=True) if points else ((), ())
        axes.plot(x, y, color=colour(number), linewidth=2, marker="o", label=name)
    axes.set(xscale="log" if lines.log_x else "linear", yscale="log" if lines.log_y else "linear")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    if not lines.log_y:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _finish(figure, path)


def _sheet(title: str, below: str, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, height)
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    axes.set_title(below, loc="left", color=FAINT, fontsize=10)
    return figure, axes


def _finish(figure: Figure, path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False)
    save_figure(figure, path)
