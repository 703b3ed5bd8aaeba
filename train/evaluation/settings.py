"""The options of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import SettingsError
from ovseg_demo.models import ALL, MODELS
from ovseg_demo.proposals import NAMING_PROPOSERS
from ovseg_demo.settings import Settings
from train.core.options import DEFAULT_DATA
from train.data.true_regions import LEAST_SIDE


@dataclass(frozen=True)
class EvaluateSettings:
    """Evaluate arms on the same proposals: mIoU and further figures.

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
    masks: Literal["proposals", "truth", "both"] = "proposals"
    """Masks that are classified: the proposer's, the true ones, or both in one table."""
    merge: Literal["benchmark", "default", "published-demo"] = "benchmark"
    """How named masks become a label map."""
    ensemble: float = 0.0
    """Share of CLIP beside a proposer that names its own masks (maskformer), 0 to 1; 0 stands for CLIP alone.
    Published: 0.7 for ADE20K, 0.6 for Pascal Context, 0.45 for Pascal VOC."""
    mask_threshold: float = 0.4
    """Threshold of maskformer's soft masks, 0 to 1."""
    model: str = Settings.model
    """Name of the model table, or a checkpoint."""
    arms: tuple[str, ...] = (ALL,)
    """Arms of the model (vanilla, adapted, context; no-prompts, mpt-only; both, all), arms of other models as
    ARM@MODEL, and further checkpoints as NAME=PATH; each is compared with the first."""
    proposer: str = ""
    """Where the proposals come from: a name, or the file of a SAM or of all of OVSeg; by default the one that
    the model was published with, or mobile-sam. maskformer with a model given by its path is the segmenter in
    that file."""
    proposals_cache: Path | None = None
    """Folder that keeps the proposals of each photo between runs."""
    templates: Literal["vild", "imagenet", "single"] = "vild"
    """Sentences around a name."""
    synonyms: bool = False
    """Use all words of a class, of which the best counts; the published protocol has one string."""
    photos: int = 0
    """Only so many photos, spread evenly over the set; 0 = all."""
    max_side_px: int = Settings.max_side_px
    """Longer side at which proposals and crops are made."""
    max_regions: int = Settings.max_regions
    """Proposals that are kept per photo."""
    least_side_px: int = LEAST_SIDE
    """Regions whose box has a shorter side are not asked for in the mask accuracy."""
    device: str = Settings.device
    """auto, cpu, cuda or cuda:<number>."""
    draws: int = 1000
    """Draws of photos for the intervals."""
    seed: int = 0
    """Of the draws."""
    json: Path | None = None
    """JSON file for all measurements."""
    chart: Path | None = None
    """PNG file for a chart of every class; with --masks both two files, -truth and -proposals."""
    table: Path | None = None
    """PNG file for the table of all arms."""

    def __post_init__(self) -> None:
        for name in ("ensemble", "mask_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{flag} is {getattr(self, name)}, but it must lie in 0 to 1.")
        if self.ensemble > 0 and self.merge == "default":
            raise SettingsError(
                f"--ensemble {self.ensemble} belongs to the published rules: set --merge benchmark."
            )
        if self.ensemble > 0 and (self.masks != "proposals" or not self._names_its_masks()):
            source = "the truth" if self.masks != "proposals" else self.proposer or Settings.proposer
            raise SettingsError(
                f"--ensemble {self.ensemble} mixes CLIP with a segmenter that names its masks itself, which "
                f"{source} does not: use 0, CLIP alone, or --proposer maskformer."
            )
        if self.photos < 0 or self.draws < 1:
            raise SettingsError(f"--photos {self.photos} and --draws {self.draws} must not be below 0 and 1.")

    def _names_its_masks(self) -> bool:
        entry = MODELS.get(self.model)
        proposer = self.proposer or (entry.proposer if entry else "")
        return proposer in NAMING_PROPOSERS or Path(proposer).is_file()
