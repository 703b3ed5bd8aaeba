"""How good the segmentation is: both arms on the same proposals, in one run, by the published measures.

    python -m train.evaluate --data-set msrc21 --merge benchmark --json msrc21.json

Every photo goes through the demo's own Segmenter; only the photos, the names and the counting are here.

--masks proposals   the demo's proposals; what a user gets
--masks truth       the true regions in their place (the paper's Figure 1): how many of them each arm names
                    right (mask accuracy), and the mIoU that this leads to
--masks both        both, as one table with a row for each arm, which --table draws:

    python -m train.evaluate --masks both --arms all context@clip-vit-b-16 --table arms.png

The mask accuracy of proposals is of those that one class fills by half or more; that class is the right one.

--merge benchmark   the published rule: a pixel takes the class with the largest sum of
                    probabilities over the masks on it. A pixel that no mask covers stays unassigned and
                    counts as wrong: it misses its class, and no class gets it as a false one.
--ensemble W        with --proposer maskformer: CLIP and the segmenter name the masks together (published)
--merge default     the demo's rule, with hidden names; unassigned pixels count in the same way.

Truth is compared at the photo's own size. Intervals hold 95 % of 1,000 draws of photos with replacement.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from train.core.files import write_text
from train.core.options import run_command
from train.data.data_sets import read_data_set
from train.data.folders import read_folders
from train.data.sources import DataError
from train.data.truth import TruthSet
from train.evaluation.arms_table import draw_table, table_text
from train.evaluation.charts import chart_of_report
from train.evaluation.report import make_report, print_head, print_report
from train.evaluation.runner import (
    Evaluator,
    EvaluatorSettings,
    MaskSource,
    arm_sources,
    class_vocabulary,
    evenly_spaced,
)
from train.evaluation.settings import EvaluateSettings


def chosen_data_set(settings: EvaluateSettings) -> TruthSet:
    """The data set that the settings name, or the folders they give.

    Raises:
        DataError: as `read_data_set`, or one of the three folders is not given.
    """
    if settings.images and settings.labels and settings.classes:
        return read_folders(settings.images, settings.labels, settings.classes, settings.ignore)
    if settings.images or settings.labels or settings.classes:
        raise DataError("Your own data needs all three of --images, --labels and --classes.")
    return read_data_set(settings.data_set, settings.data)


def evaluate(settings: EvaluateSettings) -> None:
    """Run the evaluation, print the table, write JSON and chart."""
    truth = chosen_data_set(settings)
    masks: tuple[MaskSource, ...] = ("truth", "proposals") if settings.masks == "both" else (settings.masks,)
    reports: dict[str, dict[str, Any]] = {source: measure(settings, truth, source) for source in masks}
    if len(reports) == 1:
        print_report(*reports.values())
    else:
        print_head(next(iter(reports.values())))
        print(table_text(reports))
    if settings.json:
        written = next(iter(reports.values())) if len(reports) == 1 else {"masks": reports}
        write_text(settings.json, json.dumps(written, indent=2, allow_nan=False) + "\n")
    for source, report in reports.items():
        if settings.chart:
            chart = settings.chart
            if len(reports) > 1:
                chart = chart.with_name(f"{chart.stem}-{source}{chart.suffix}")
            chart_of_report(report, chart)
    if settings.table:
        draw_table(reports, settings.table)


def measure(settings: EvaluateSettings, truth: TruthSet, masks: MaskSource) -> dict[str, Any]:
    """The report of all arms on one kind of masks."""
    how = EvaluatorSettings(
        arms=tuple(arm_sources(settings.arms, settings.model)),
        masks=masks,
        merge=settings.merge,
        templates=settings.templates,
        model=settings.model,
        ensemble=settings.ensemble,
        mask_threshold=settings.mask_threshold,
        proposer=settings.proposer,
        proposals_cache=settings.proposals_cache,
        device=settings.device,
        max_side_px=settings.max_side_px,
        max_regions=settings.max_regions,
        least_side_px=settings.least_side_px,
    )
    evaluator = Evaluator(truth, class_vocabulary(truth, synonyms=settings.synonyms), how)
    counted = evaluator.run(evenly_spaced(truth.photos, settings.photos))
    return make_report(replace(settings, masks=masks), truth, counted)


if __name__ == "__main__":
    run_command(evaluate, EvaluateSettings, prog="train.evaluate")
