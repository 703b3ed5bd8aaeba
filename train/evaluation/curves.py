"""The log of a training run, and its loss and accuracy as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from train.data.sources import DataError
from train.evaluation.figures import colour, new_figure, plain_axes, save_figure

Log = list[dict[str, float]]
LOG = "log.jsonl"
PANELS = (("loss", "loss"), ("top1", "regions whose noun is on top of the bank, percent"))


def read_log(path: Path) -> Log:
    """The rows of a log; an incomplete last line is left out.

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
    figure = new_figure(1200, 1100)
    for axes, (key, title) in zip(figure.subplots(len(PANELS), 1), PANELS, strict=True):
        _draw_panel(axes, logs, key, title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=max(len(labels), 1), frameon=False)
    save_figure(figure, path)


def _draw_panel(axes: Axes, logs: Mapping[str, Log], key: str, title: str) -> None:
    plain_axes(axes)
    axes.set_title(title, loc="left")
    known = [np.zeros(0)]
    for number, (name, log) in enumerate(logs.items()):
        steps = [row["step"] for row in log if key in row]
        values = np.array([row[key] for row in log if key in row])
        mean = smoothed(values, max(len(values) // 50, 1))
        marker = "." if len(values) == 1 else ""
        axes.plot(steps, values, color=colour(number), alpha=0.25, linewidth=1)
        axes.plot(steps, mean, color=colour(number), linewidth=2, marker=marker, label=name)
        known.append(values)
    every = np.concatenate(known)
    if len(every):
        # The highest half percent may lie outside, so that an outlier does not flatten the curve.
        low, high = min(0.0, float(every.min())), float(np.percentile(every, 99.5))
        axes.set_ylim(low, low + 1.05 * max(high - low, 1e-6))
