"""The options of the mining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import SettingsError
from train.core.options import DEFAULT_DATA
from train.data.named_regions import held_out_photos, photo_key
from train.data.shards import ImageFormat
from train.data.sources import DataError, Photo
from train.mining.features import RegionFilter
from train.mining.pairing import PairRules
from train.mining.photos import file_photos, source_photos
from train.mining.proposals import ProposalSettings
from train.mining.unlabeled_regions import UnlabeledRules


@dataclass(frozen=True)
class MineSettings:
    """Mine region-noun pairs from captions (see train/README.md)."""

    work: Path = Path("runs/mine")
    """Folder for proposals, features and the log; the next run resumes from it."""
    out: Path = Path("runs/pairs")
    """Folder for the shards, their manifest and the contact sheet."""
    stage: Literal["propose", "pairs", "all"] = "all"
    """Only the proposals; only the pairs, from existing proposals; or both."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders of --sources."""
    sources: tuple[str, ...] = ("coco_captions", "flickr8k")
    """Data folders to mine, one after the other, each in random order."""
    captions: Path | None = None
    """Captions file instead of --sources: COCO's JSON, or a CSV with the columns image and caption."""
    images: Path | None = None
    """Folder of the photos of --captions."""
    truth: Path | None = None
    """Instances of those photos in COCO's format: the precision of the pairs is printed (coco_captions has
    its own)."""
    leave_out_fold_0: bool = True
    """Leave out the photos of fold 0 of the named regions, which no stage trains on."""
    captions_per_photo: int = 5
    """Use the nouns of the first so many captions of a photo (the paper: 1 or 5)."""
    limit: int = 0
    """Mine only the first so many photos; 0 = all. More may be asked for later."""
    seed: int = 0
    """Seed of the photos' order."""
    chunk: int = 16
    """Photos per piece of work; a kill loses at most one piece per worker."""
    shard_chunks: int = 32
    """Chunks per shard."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray Data (pip install 'ovseg-demo[scale]')."""
    workers: int = 1
    """Processes, or Ray actors."""
    device: str = "cpu"
    """Where networks run: cpu, cuda or auto."""
    proposer: str = "mobile-sam"
    """Proposer of the masks."""
    proposal_size: int = 512
    """Longer side in pixels of the proposer's input."""
    density: str = "low"
    """How many points are prompted: low, normal or high."""
    max_side_px: int = 640
    """Larger photos are shrunk to this longer side first."""
    model: str = "ovseg-mini"
    """CLIP that matches: a name of the model table, a checkpoint file or the folder of an ovseg-mini."""
    weights: Literal["vanilla", "adapted"] = "vanilla"
    """Its arm; the paper mines with the vanilla one."""
    templates: Literal["single", "vild", "imagenet"] = "single"
    """Sentences around a noun."""
    least_area: float = 0.004
    """Smaller regions are left out (fraction of the photo)."""
    most_area: float = 0.95
    """Larger regions are left out (fraction of the photo)."""
    least_photos: int = 2
    """Nouns and compounds in fewer photos are left out: most are misspelt or no nouns."""
    confidence: Literal["contrast", "bank", "regions", "both"] = "contrast"
    """contrast: compared with photos without the noun; bank: softmax over a bank of nouns at the region;
    regions: softmax over the photo's regions for the noun; both: the geometric mean of these two."""
    threshold: float = 0.0
    """Least confidence of a pair; training can also choose by it (--least-score)."""
    unique: bool = True
    """A region keeps its most confident noun only."""
    bank_size: int = 2000
    """Number of nouns in the bank, the most frequent ones."""
    most_alike: float = 0.6
    """Nouns whose cosine is above this do not compete."""
    unlabeled_regions: int = 0
    """Keep so many regions per captioned photo that no noun was given to (mining/unlabeled_regions.py)."""
    baseline_photos: int = 128
    """Confidence "contrast" is measured against the first so many photos."""
    image_format: ImageFormat = "webp"
    """How crops are stored; png is lossless."""

    def __post_init__(self) -> None:
        for name in (
            "captions_per_photo",
            "chunk",
            "shard_chunks",
            "least_photos",
            "bank_size",
            "baseline_photos",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(
                    f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}."
                )
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"--threshold must lie in 0..1, not {self.threshold}.")
        for name in ("limit", "unlabeled_regions"):
            if getattr(self, name) < 0:
                raise SettingsError(
                    f"--{name.replace('_', '-')} must not be negative, but is {getattr(self, name)}."
                )

    @property
    def proposals_folder(self) -> Path:
        """Where the first step keeps its masks."""
        return self.work / "proposals"

    def photo_count(self, photos: Sequence[Photo]) -> int:
        """How many photos the limit allows."""
        return min(self.limit or len(photos), len(photos))

    def chunk_of(self, photos: Sequence[Photo], number: int) -> Sequence[Photo]:
        """The photos of a chunk, counted from 0."""
        return photos[number * self.chunk : (number + 1) * self.chunk]

    def proposal_settings(self) -> ProposalSettings:
        """The part that decides the masks."""
        return ProposalSettings(self.proposer, self.proposal_size, self.density, self.max_side_px)

    def region_filter(self) -> RegionFilter:
        """The part that decides which masks are embedded."""
        return RegionFilter(self.least_area, self.most_area)

    def rules(self) -> PairRules:
        """The part that decides which pairs are made."""
        return PairRules(self.confidence, self.threshold, self.unique)

    def unlabeled_rules(self) -> UnlabeledRules:
        """The part that decides which regions without a noun are kept."""
        return UnlabeledRules(self.unlabeled_regions)

    def photos(self) -> list[Photo]:
        """All photos to mine, in their order, without the limit.

        Raises:
            DataError: sources or captions are missing or malformed.
        """
        photos = self._all_photos()
        held_out = held_out_photos(self.data) if self.leave_out_fold_0 else frozenset()
        return [photo for photo in photos if photo_key(photo.path) not in held_out]

    def _all_photos(self) -> list[Photo]:
        if self.captions is None:
            return source_photos(self.data, self.sources, self.seed)
        if self.images is None:
            raise DataError(f"--captions {self.captions} needs the folder of its photos: give --images.")
        return file_photos(self.captions, self.images, self.seed)
