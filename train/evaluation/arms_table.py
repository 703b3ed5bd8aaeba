"""All arms in one table and one picture: how well they name masks, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ovseg_demo.output.text_drawing import shorten
from train.evaluation.figures import FAINT, colour, new_figure, plain_axes, save_figure

MASKS = {"truth": "true masks", "proposals": "proposals"}
FIGURES = {"top1": "mask accuracy", "top1_mean_per_class": "mask accuracy, per class", "miou": "mIoU"}
NAMING_STAGES = ("crop", "embed")
"""What naming the regions of a photo costs beyond what earlier arms have computed of it already; words are
embedded once for all photos."""

_ROW_PX, _PANEL_PX, _NAMES_PX, _HEAD_PX = 34, 230, 300, 150
_LONGEST_NAME = 44


@dataclass(frozen=True)
class Column:
    """One figure of every arm.

    Attributes:
        title: two lines: what, and on which masks.
        values: by arm; None where there is nothing to count.
        intervals: by arm, 95 %; None where there is none.
        unit: "%" or "s".
    """

    title: tuple[str, str]
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    unit: str


def columns_of(reports: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], list[Column]]:
    """The arms and the columns of their table.

    Args:
        reports: from `report.make_report`, by the masks that were named; all of the same arms.
    """
    arms = tuple(next(iter(reports.values()))["arms"])
    columns = []
    for masks, report in reports.items():
        rows = [report["arms"][arm] for arm in arms]
        for figure, title in FIGURES.items():
            if any(row.get(figure) is not None for row in rows):
                ends = [row["intervals"].get(figure, (None, None)) for row in rows]
                columns.append(
                    Column(
                        (title, MASKS[masks]),
                        tuple(row.get(figure) for row in rows),
                        tuple(None if low is None else (low, high) for low, high in ends),
                        "%",
                    )
                )
        seconds = tuple(sum(row["seconds"][stage] for stage in NAMING_STAGES) for row in rows)
        columns.append(Column(("seconds a photo", MASKS[masks]), seconds, (None,) * len(arms), "s"))
    return arms, columns


def table_text(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for a terminal: one row an arm."""
    arms, columns = columns_of(reports)
    lines = [["", *(column.title[0] for column in columns)], ["", *(column.title[1] for column in columns)]]
    for number, arm in enumerate(arms):
        lines.append([arm, *(_cell(column, number) for column in columns)])
    widths = [max(len(cell) for cell in cells) for cells in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(column: Column, number: int) -> str:
    value, interval = column.values[number], column.intervals[number]
    if value is None:
        return "-"
    if column.unit == "s":
        return f"{value:.2f}"
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def draw_table(reports: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the table: a row for each arm, a panel for each column, with intervals.

    Raises:
        OutputError: the file cannot be written.
    """
    arms, columns = columns_of(reports)
    first = next(iter(reports.values()))
    figure = new_figure(_NAMES_PX + len(columns) * _PANEL_PX, _HEAD_PX + len(arms) * _ROW_PX)
    chosen = first["settings"]
    figure.suptitle(
        f"{first['data_set']}: every arm on the same masks\n{first['photos']} photos, "
        f"{first['classes']} classes, templates {chosen['templates']}, merge {chosen['merge']}; "
        "bars are 95 % intervals over photos; seconds are what an arm adds to those above it",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axes, column in zip(panels, columns, strict=True):
        _draw_column(axes, arms, column)
    save_figure(figure, path)


def _draw_column(axes: Axes, arms: tuple[str, ...], column: Column) -> None:
    plain_axes(axes, "x")
    rows = np.arange(len(arms))
    largest = max((v for v in column.values if v is not None), default=1.0)
    for row in rows:
        value, interval = column.values[row], column.intervals[row]
        if value is None:
            continue
        axes.plot([value], [row], "o", color=colour(int(row)), markersize=6)
        if interval:
            axes.plot(interval, [row, row], color=colour(int(row)), linewidth=1.6)
        text = f"{value:.1f}" if column.unit == "%" else f"{value:.2f}"
        axes.annotate(text, (value, row), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_title("\n".join(column.title), fontsize=9, color="#1c1f24")
    axes.set(ylim=(len(arms) - 0.5, -0.6), xlim=(0, 100) if column.unit == "%" else (0, 1.25 * largest or 1))
    axes.set_yticks(rows, [shorten(arm, _LONGEST_NAME) for arm in arms], color="#1c1f24")
    axes.tick_params(axis="x", labelcolor=FAINT, labelsize=8)
