"""Bar chart of every class under each arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ovseg_demo.output.text_drawing import shorten
from train.evaluation.figures import FAINT, colour, new_figure, plain_axes, save_figure

_ROWS_PER_COLUMN = 60
_LONGEST_NAME = 26
# Pixels.
_BAR, _GAP, _COLUMN_WIDTH, _HEAD = 14, 12, 620, 130


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
    title = f"{report['data_set']}: {title} per class, percent"
    save_figure(draw_chart(title, subtitle, tuple(arms), shown), path)


def _bar(figures: Mapping[str, Any], figure: str) -> Bar | None:
    value = figures.get(figure)
    if value is None:
        return None
    low, high = figures["interval"] if figure == "iou" else (None, None)
    return Bar(value, None if low is None or high is None else (low, high))


def draw_chart(title: str, subtitle: str, arms: Sequence[str], rows: Sequence[Row]) -> Figure:
    """Horizontal bars from 0 to 100, as many columns side by side as the classes need."""
    columns = max(1, math.ceil(len(rows) / _ROWS_PER_COLUMN))
    per_column = max(1, math.ceil(len(rows) / columns))
    figure = new_figure(columns * _COLUMN_WIDTH + 280, _HEAD + per_column * (len(arms) * _BAR + _GAP))
    figure.suptitle(f"{title}\n{subtitle}", x=0.01, ha="left", fontsize=11)
    for number, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        _draw_column(axes, arms, rows[number * per_column : (number + 1) * per_column], per_column)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=max(len(arms), 1), frameon=False)
    return figure


def _draw_column(axes: Axes, arms: Sequence[str], rows: Sequence[Row], per_column: int) -> None:
    plain_axes(axes, "x")
    middles = np.arange(len(rows), dtype=float)
    height = _BAR / (len(arms) * _BAR + _GAP)
    for number, arm in enumerate(arms):
        bars = [row.bars[number] for row in rows]
        values = [math.nan if bar is None else bar.value for bar in bars]
        reach = [_reach(bar) for bar in bars]
        drawn = axes.barh(
            middles + (number - (len(arms) - 1) / 2) * height,
            values,
            0.85 * height,
            color=colour(number),
            label=arm,
            xerr=np.array(reach).reshape(-1, 2).T,  # below and above
            error_kw={"elinewidth": 1, "ecolor": "#1c1f24"},
        )
        axes.bar_label(drawn, fmt="%.0f", padding=4, fontsize=8, color=FAINT)
    axes.set(xlim=(0, 108), ylim=(per_column - 0.5, -0.5), xticks=range(0, 101, 25))
    axes.set_yticks(middles, [shorten(row.name, _LONGEST_NAME) for row in rows], color="#1c1f24")


def _reach(bar: Bar | None) -> tuple[float, float]:
    """How far the interval goes below and above the value."""
    if bar is None or bar.interval is None:
        return math.nan, math.nan
    low, high = bar.interval
    return max(bar.value - low, 0.0), max(high - bar.value, 0.0)
