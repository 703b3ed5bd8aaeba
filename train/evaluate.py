"""How good the segmentation is: both arms on the same proposals, in one run, by the published measures.

    python -m train.evaluate --data-set msrc21 --merge benchmark --json msrc21.json

Every photo walks through the demo's own Segmenter; only the photos, the names and the counting are here.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import SettingsError
from ovseg_demo.models import MODELS
from ovseg_demo.settings import Settings
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.benchmarks import BENCHMARKS
from train.data.folders import read_folders
from train.data.sources import DataError
from train.data.truth import TRUTH_SETS, TruthSet, read_one_of
from train.evaluation.report import make_report, print_report
from train.evaluation.runner import Walker, WalkSettings, arm_sources, class_vocabulary, spread
from train.zeroshot import LEAST_SIDE

DATA_SETS: dict[str, Callable[[Path], TruthSet]] = {**TRUTH_SETS, **BENCHMARKS}


@dataclass(frozen=True)
class EvaluateSettings:
    """mIoU and its companions of both arms on the same proposals.

    Data sets: msrc21, coco-val, coco-instances, coco-panoptic, ade20k-150, ade20k-847, context-59,
    context-459, voc-20, coco-stuff-171, cityscapes-19, coco-train; or your own with --images, --labels and
    --classes.
    """

    data_set: str = "msrc21"
    """Name of a data set."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    images: Path | None = None
    """Your own data: folder of photos."""
    labels: Path | None = None
    """Your own data: label maps of the same names, PNG or TIFF; a pixel = number of its class from 0."""
    classes: Path | None = None
    """Your own data: file with one class a line, synonyms after bars."""
    ignore: int = 255
    """Your own data: value of pixels that do not count."""
    masks: Literal["proposals", "truth"] = "proposals"
    """What is named: the proposer's masks or the true ones."""
    merge: Literal["benchmark", "default", "published-demo"] = "benchmark"
    """How named masks become a label map."""
    ensemble: float = 0.0
    """Share of CLIP beside a proposer that names its own masks (maskformer), 0 to 1; 0 stands for CLIP alone.
    Published: 0.7 for ADE20K, 0.6 for Pascal Context, 0.45 for Pascal VOC."""
    mask_threshold: float = 0.4
    """Where maskformer's soft masks end, 0 to 1."""
    model: str = Settings.model
    """Name of the model table, or a checkpoint."""
    arms: tuple[str, ...] = ("vanilla", "adapted")
    """Arms of the model (vanilla, adapted; no-prompts, mpt-only), and further checkpoints as NAME=PATH; each
    is compared with the first."""
    proposer: str = ""
    """Where the proposals come from: a name, or the file of a SAM or of all of OVSeg; by default the one that
    the model was published with, or mobile-sam. maskformer with a model given by its path is the segmenter in
    that file."""
    proposals_cache: Path | None = None
    """Folder that keeps the proposals of each photo between runs."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    synonyms: bool = False
    """Give every class all its words, of which the best counts; the published protocol has one string."""
    photos: int = 0
    """Only so many photos, spread evenly over the set; 0 = all."""
    max_side_px: int = Settings.max_side_px
    """Longer side at which proposals and crops are made."""
    max_regions: int = Settings.max_regions
    """Proposals that are kept per photo."""
    least_side_px: int = LEAST_SIDE
    """True regions whose box has a shorter side are not asked for in the top-1 figures."""
    device: str = Settings.device
    """auto, cpu, cuda or cuda:<number>."""
    draws: int = 1000
    """Draws of photos for the intervals."""
    seed: int = 0
    """Of the draws."""
    json: Path | None = None
    """Write everything here as well."""
    chart: Path | None = None
    """Write a picture of every class's figure here (PNG)."""

    def __post_init__(self) -> None:
        for name in ("ensemble", "mask_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{flag} is {getattr(self, name)}, but it must lie in 0 to 1.")
        if self.ensemble > 0 and self.merge == "default":
            raise SettingsError(
                f"--ensemble {self.ensemble} belongs to the published rules: set --merge benchmark."
            )
        if self.ensemble > 0 and (self.masks == "truth" or not self._names_its_masks()):
            source = "the truth" if self.masks == "truth" else self.proposer or Settings.proposer
            raise SettingsError(
                f"--ensemble {self.ensemble} mixes CLIP with a segmenter that names its masks itself, which "
                f"{source} does not: use 0, CLIP alone, or --proposer maskformer."
            )
        if self.photos < 0 or self.draws < 1:
            raise SettingsError(f"--photos {self.photos} and --draws {self.draws} must not be below 0 and 1.")

    def _names_its_masks(self) -> bool:
        entry = MODELS.get(self.model)
        proposer = self.proposer or (entry.proposer if entry else "")
        return proposer == "maskformer" or Path(proposer).is_file()


def read_data_set(name: str, root: Path) -> TruthSet:
    """The data set of this name, below the folder that holds the data folders.

    Raises:
        DataError: there is none of that name, or a part of it is missing.
    """
    return read_one_of(DATA_SETS, name, root)


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
    """Walk, print the table, write JSON and chart."""
    truth = chosen_data_set(settings)
    walk = WalkSettings(
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
    walker = Walker(truth, class_vocabulary(truth, synonyms=settings.synonyms), walk)
    counted = walker.walk(spread(truth.photos, settings.photos))
    report = make_report(settings, truth, counted)
    print_report(report)
    if settings.json:
        write_text(settings.json, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if settings.chart:
        from train.evaluation.charts import chart_of_report

        chart_of_report(report, settings.chart)


if __name__ == "__main__":
    run_command(evaluate, EvaluateSettings, prog="train.evaluate")
