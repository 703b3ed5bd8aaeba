"""How good the segmentation is: both arms on the same proposals, in one run, by the published measures.

    python -m train.evaluate --data-set msrc21 --merge benchmark --json msrc21.json

Every photo goes through the demo's own Segmenter; only the photos, the names and the counting are here.

--masks proposals   the demo's proposals; what a user gets
--masks truth       the true regions in their place (the paper's Figure 1): how many of them each arm names
                    right, and the mIoU that this leads to

--merge benchmark   the published rule: a pixel takes the class with the largest sum of
                    probabilities over the masks on it. A pixel that no mask covers stays unassigned and
                    counts as wrong: it misses its class, and no class gets it as a false one.
--ensemble W        with --proposer maskformer: CLIP and the segmenter name the masks together (published)
--merge default     the demo's rule, with hidden names; unassigned pixels count in the same way.

Truth is compared at the photo's own size. Intervals hold 95 % of 1,000 draws of photos with replacement.
"""

from __future__ import annotations

import json

from train.core.files import write_text
from train.core.options import run_command
from train.data.data_sets import read_data_set
from train.data.folders import read_folders
from train.data.sources import DataError
from train.data.truth import TruthSet
from train.evaluation.report import make_report, print_report
from train.evaluation.runner import Evaluator, EvaluatorSettings, arm_sources, class_vocabulary, evenly_spaced
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
    how = EvaluatorSettings(
        arms=tuple(arm_sources(settings.arms, settings.model)),
        masks=settings.masks,
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
    report = make_report(settings, truth, counted)
    print_report(report)
    if settings.json:
        write_text(settings.json, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if settings.chart:
        from train.evaluation.charts import chart_of_report

        chart_of_report(report, settings.chart)


if __name__ == "__main__":
    run_command(evaluate, EvaluateSettings, prog="train.evaluate")
