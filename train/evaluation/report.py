"""The figures of an evaluation as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ovseg_demo.evaluation.metrics import (
    Estimate,
    Tally,
    bootstrap_draws,
    class_estimates,
    differences,
    estimates,
    ratios,
)
from train.data.benchmarks import PUBLISHED_PHOTOS
from train.data.truth import TruthSet
from train.evaluation.runner import EvaluationCounts
from train.evaluation.settings import EvaluateSettings

TITLES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "unassigned": "unassigned pixels",
    "present_precision": "present: precision",
    "present_recall": "present: recall",
    "absent_precision": "absent: precision",
    "absent_recall": "absent: recall",
    "top1": "mask accuracy",
    "top1_mean_per_class": "mask accuracy, per class",
}
SHARED_STAGES = ("read", "propose")
ARM_STAGES = ("crop", "embed", "text", "merge")


def make_report(settings: EvaluateSettings, truth: TruthSet, counted: EvaluationCounts) -> dict[str, Any]:
    """All measurements, in plain types.

    `arms` has the figures of each arm, in percent, with `intervals` and `classes`; `difference` is the last
    arm minus the first, `differences` and `ratios` compare every further arm with the first.
    """
    tallies = counted.tallies()
    first = next(iter(tallies))
    draws = bootstrap_draws(tallies[first].photos, settings.draws, settings.seed)
    others = {arm: tally for arm, tally in tallies.items() if arm != first}
    minus = {arm: _figures(differences(tally, tallies[first], draws)) for arm, tally in others.items()}
    report: dict[str, Any] = {
        "data_set": truth.name,
        "photos": tallies[first].photos,
        "photos_of_the_set": len(truth.photos),
        "published_photos": PUBLISHED_PHOTOS.get(truth.name),
        "skipped": counted.skipped,
        "classes": len(truth.classes),
        "first_arm": first,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "seconds": _seconds(counted, first, SHARED_STAGES),
        "arms": {
            arm: {
                **_figures(estimates(tally, draws)),
                "seconds": _seconds(counted, arm, ARM_STAGES),
                "weights_sha256": counted.sha256[arm],
                "classes": _classes(truth, tally, class_estimates(tally, draws)),
            }
            for arm, tally in tallies.items()
        },
        "differences": minus,
        "ratios": {arm: _figures(ratios(tally, tallies[first], draws)) for arm, tally in others.items()},
    }
    if minus:
        report["difference"] = list(minus.values())[-1]
    return report


def _figures(found: Mapping[str, Estimate]) -> dict[str, Any]:
    values: dict[str, Any] = {name: _short(estimate.value) for name, estimate in found.items()}
    values["intervals"] = {name: [_short(v) for v in e.interval] for name, e in found.items()}
    return values


def _classes(truth: TruthSet, tally: Tally, iou: list[Estimate]) -> dict[str, dict[str, Any]]:
    """Every class of the set; None where there was nothing to count."""
    rows = {}
    for i, name in enumerate(truth.classes):
        row: dict[str, Any] = {
            "iou": _short(iou[i].value),
            "interval": [_short(v) for v in iou[i].interval],
            "truth_pixels": int(tally.truth[:, i].sum()),
            "predicted_pixels": int(tally.predicted[:, i].sum()),
        }
        if tally.regions.any():
            regions, named = (int(counts[:, i].sum()) for counts in (tally.regions, tally.named))
            row |= {"regions": regions, "top1": _short(100 * named / regions) if regions else None}
        rows[name] = row
    return rows


def _seconds(counted: EvaluationCounts, arm: str, stages: tuple[str, ...]) -> dict[str, float]:
    """Mean over photos."""
    rows = counted.seconds[arm]
    return {stage: round(sum(row.get(stage, 0.0) for row in rows) / len(rows), 4) for stage in stages}


def _short(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)


def print_report(report: Mapping[str, Any]) -> None:
    """The table: one row per figure, one column per arm, one per difference from the first."""
    arms, minus = report["arms"], report["differences"]
    print_head(report)
    titles = ["", *arms, *(f"{arm} - {report['first_arm']}" for arm in minus)]
    columns = [(figures, "") for figures in arms.values()] + [(figures, "+") for figures in minus.values()]
    rows = [titles]
    for name, title in TITLES.items():
        if any(name in figures for figures, _ in columns):
            rows.append([title, *(_cell(figures, name, sign) for figures, sign in columns)])
    for stage in SHARED_STAGES:
        rows.append([f"seconds: {stage}", f"{report['seconds'][stage]:.3f} for all arms"])
    for stage in ARM_STAGES:
        rows.append([f"seconds: {stage}", *(f"{figures['seconds'][stage]:.3f}" for figures in arms.values())])
    for row in rows:
        print("  ".join(cell.ljust(24) for cell in row).rstrip())


def print_head(report: Mapping[str, Any]) -> None:
    """What was measured on what, and what is missing."""
    settings = report["settings"]
    print(
        f"{report['data_set']}: {report['photos']} photos, {report['classes']} classes; "
        f"masks {settings['masks']}, merge {settings['merge']}, model {settings['model']}; "
        "percent with 95 % intervals"
    )
    if report["skipped"]:
        print(f"{len(report['skipped'])} photos were skipped.")
    if report["published_photos"] not in (None, report["photos"]):
        print(f"Not comparable with published figures, which are on {report['published_photos']} photos.")


def _cell(figures: Mapping[str, Any], name: str, sign: str) -> str:
    if name not in figures:
        return "-"
    low, high = figures["intervals"][name]
    ends = "" if low is None else f" [{low:{sign}.1f}, {high:{sign}.1f}]"
    return f"{figures[name]:{sign}.1f}{ends}"
