"""Metrics of a segmentation: counts per photo, figures from the counts, bootstrap intervals over photos.

The page and the evaluation of models both take theirs from here.

A figure is a function of sums over photos. The same formula gives the value (every photo once) and its
interval (photos drawn with replacement, the middle 95 % of the draws). All arms share the draws, so their
difference has an interval of its own, much narrower than theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Figures = dict[str, NDArray[np.float64]]
Interval = tuple[float, float]
Comparison = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

MAIN_FIGURES = (
    "miou",
    "pixel_accuracy",
    "mean_class_accuracy",
    "unassigned",
    "present_precision",
    "present_recall",
    "absent_precision",
    "absent_recall",
    "top1",
    "top1_mean_per_class",
)
"""Figures of one number each, in percent."""


def confusion_matrix(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int, ignore: int
) -> Counts:
    """Count pixels by true and predicted class.

    Args:
        truth: (H, W) classes from 0, or `ignore`.
        predicted: (H, W) classes from 1, 0 = unassigned, as in a label map of the demo.
        classes: how many there are.
        ignore: true value of pixels that do not count.

    Returns:
        (classes, classes + 1); row = true class, column 0 = unassigned, column i + 1 = class i.

    Raises:
        ValueError: shapes differ, or a value is out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"The truth is {truth.shape}, the prediction {predicted.shape}.")
    known = truth != ignore
    rows, columns = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < classes):
        raise ValueError(f"The truth has classes {rows.min()} to {rows.max()}, not 0 to {classes - 1}.")
    if columns.size and not (columns.min() >= 0 and columns.max() <= classes):
        raise ValueError(f"The prediction has values {columns.min()} to {columns.max()}, not 0 to {classes}.")
    width = classes + 1
    return np.bincount(rows * width + columns, minlength=classes * width).reshape(classes, width)


@dataclass(frozen=True)
class PhotoCounts:
    """What one photo adds; each array has one number per class."""

    hits: Counts
    """Pixels of the class that were given it."""
    truth: Counts
    """Pixels of the class."""
    predicted: Counts
    """Labelled pixels that were given the class."""
    present: NDArray[np.bool_]
    """The photo shows the class."""
    absent: NDArray[np.bool_]
    """The photo does not show the class. Both are False where the truth is unknown."""
    found: NDArray[np.bool_]
    """The result says the photo shows the class."""
    regions: Counts
    """True regions of the class that were to be named."""
    named: Counts
    """Those of them that were named right."""

    @classmethod
    def of(
        cls,
        confusion: Counts,
        found: NDArray[np.bool_],
        uncertain: frozenset[int] = frozenset(),
        regions: Counts | None = None,
        named: Counts | None = None,
    ) -> PhotoCounts:
        """From the pixels of a photo, what was found in it, and its true regions if they were named."""
        truth, none = confusion.sum(axis=1), np.zeros(len(confusion), dtype=np.int64)
        absent = truth == 0
        absent[list(uncertain)] = False
        return cls(
            hits=np.diagonal(confusion, offset=1).copy(),
            truth=truth,
            predicted=confusion[:, 1:].sum(axis=0),
            present=truth > 0,
            absent=absent,
            found=found,
            regions=none if regions is None else regions,
            named=none if named is None else named,
        )


class Tally:
    """The counts of every photo under one arm, (N, C) once they are stacked."""

    def __init__(self, photos: list[PhotoCounts]) -> None:
        if not photos:
            raise ValueError("No photo was counted.")
        self.photos = len(photos)
        self.hits = _stack(photos, "hits")
        self.truth = _stack(photos, "truth")
        self.predicted = _stack(photos, "predicted")
        self.regions = _stack(photos, "regions")
        self.named = _stack(photos, "named")
        present, absent, found = (_stack(photos, name) > 0 for name in ("present", "absent", "found"))
        # Over classes: only the sums over (photo, class) pairs count.
        self.said = {
            "present": (present & found).sum(1),
            "absent": (absent & ~found).sum(1),
            "of_present": present.sum(1),
            "of_absent": absent.sum(1),
            "of_found": ((present | absent) & found).sum(1),
            "of_not_found": ((present | absent) & ~found).sum(1),
        }

    def figures(self, draws: NDArray[np.float64] | None = None) -> Figures:
        """Every figure under each draw of photos.

        mIoU is the sum of the IoU of the classes that the truth shows, divided by the number of classes that
        truth or prediction show (a class that is only predicted has IoU 0), as the published evaluation has
        it. Pixels without a true class count nowhere; unassigned pixels miss their class.

        Args:
            draws: (B, N) how often each photo counts; every photo once if None.

        Returns:
            Percent. (B,) for `MAIN_FIGURES`, and "iou" (B, C), NaN where neither truth nor prediction shows
            the class; a figure that nothing was counted for is NaN.
        """
        times = np.ones((1, self.photos)) if draws is None else draws
        hits, truth, predicted = (times @ c for c in (self.hits, self.truth, self.predicted))
        regions, named = times @ self.regions, times @ self.named
        said = {name: times @ counts for name, counts in self.said.items()}
        iou = percent_of(hits, truth + predicted - hits)
        return {
            "miou": mean_of_classes(iou),
            "pixel_accuracy": percent_of(hits.sum(1), truth.sum(1)),
            "mean_class_accuracy": mean_of_classes(percent_of(hits, truth)),
            "unassigned": percent_of(truth.sum(1) - predicted.sum(1), truth.sum(1)),
            "present_precision": percent_of(said["present"], said["of_found"]),
            "present_recall": percent_of(said["present"], said["of_present"]),
            "absent_precision": percent_of(said["absent"], said["of_not_found"]),
            "absent_recall": percent_of(said["absent"], said["of_absent"]),
            "top1": percent_of(named.sum(1), regions.sum(1)),
            "top1_mean_per_class": mean_of_classes(percent_of(named, regions)),
            "iou": iou,
        }


def _stack(photos: list[PhotoCounts], name: str) -> NDArray[np.float64]:
    return np.stack([getattr(photo, name) for photo in photos]).astype(np.float64)


def percent_of(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percent; NaN where there is nothing to divide by."""
    shares = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return 100 * shares


def mean_of_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes, without those that are NaN."""
    there = ~np.isnan(values)
    means = np.full(len(values), np.nan)
    np.divide(np.where(there, values, 0).sum(1), there.sum(1), out=means, where=there.any(1))
    return means


def bootstrap_draws(photos: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(draws, photos) how often each photo is drawn when as many are drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(photos, np.full(photos, 1 / photos), size=draws).astype(np.float64)


def interval(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of the draws, without those that have no value; NaN if none has."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it in 95 % of the draws."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"


def estimates(tally: Tally, draws: NDArray[np.float64]) -> dict[str, Estimate]:
    """The figures of one number each that something was counted for."""
    point, drawn = tally.figures(), tally.figures(draws)
    return {
        name: Estimate(float(point[name][0]), interval(drawn[name]))
        for name in MAIN_FIGURES
        if not np.isnan(point[name][0])
    }


def class_estimates(tally: Tally, draws: NDArray[np.float64]) -> list[Estimate]:
    """IoU of every class, NaN for a class that neither truth nor prediction shows."""
    point, drawn = tally.figures()["iou"][0], tally.figures(draws)["iou"]
    return [Estimate(float(value), interval(column)) for value, column in zip(point, drawn.T, strict=True)]


def differences(tally: Tally, base: Tally, draws: NDArray[np.float64]) -> dict[str, Estimate]:
    """What `tally` has more than `base`, the same draws for both."""
    return _compare(tally, base, draws, lambda a, b: a - b)


def ratios(tally: Tally, base: Tally, draws: NDArray[np.float64]) -> dict[str, Estimate]:
    """`tally` divided by `base`, the same draws for both; without figures that are 0 under `base`."""
    return _compare(tally, base, draws, lambda a, b: percent_of(a, b) / 100)


def _compare(tally: Tally, base: Tally, draws: NDArray[np.float64], by: Comparison) -> dict[str, Estimate]:
    value, base_value = tally.figures(), base.figures()
    drawn, base_drawn = tally.figures(draws), base.figures(draws)
    found = {}
    for name in MAIN_FIGURES:
        point = float(by(value[name], base_value[name])[0])
        if not np.isnan(point):
            found[name] = Estimate(point, interval(by(drawn[name], base_drawn[name])))
    return found


@dataclass(frozen=True)
class Reliability:
    """How right confidences are: tenths of 0..1, with the mean confidence, the share right and the count."""

    confidence: tuple[float, ...]
    right: tuple[float, ...]
    count: tuple[int, ...]

    @classmethod
    def of(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
        """Put (n,) confidences in tenths; empty tenths are left out."""
        bins = np.minimum((10 * confidence).astype(np.int64), 9)
        rows = [
            (float(confidence[bins == b].mean()), float(right[bins == b].mean()), int((bins == b).sum()))
            for b in range(10)
            if (bins == b).any()
        ]
        means, shares, counts = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(tuple(means), tuple(shares), tuple(counts))

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1: mean distance of confidence and share right over all."""
        gaps = [abs(c - r) * n for c, r, n in zip(self.confidence, self.right, self.count, strict=True)]
        return sum(gaps) / max(sum(self.count), 1)
