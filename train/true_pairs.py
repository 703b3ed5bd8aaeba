"""Training pairs from true masks and fixed class names: the paper's other supervision.

    python -m train.true_pairs --out runs/true_pairs
    python -m train.true_pairs --instances annotations/instances_train2017.json --images train2017 --out ...

Same shards as mined pairs, so fine-tuning and prompt tuning read them alike, alone or together with mined
ones (`--pairs runs/pairs runs/true_pairs`). The paper trained on the 171 names of COCO-Stuff this way: the
names that it holds get better, the rest is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ovseg_demo.errors import ImageError, SettingsError
from ovseg_demo.imaging import resize_to_side
from train.core.options import DEFAULT_DATA, run_command
from train.data.contact_sheet import report_shards
from train.data.named_regions import held_out_photos, photo_key
from train.data.shards import ImageFormat, Pair, cut_pair, write_shards
from train.data.sources import DataError, path_below
from train.data.truth import TRUTH_SETS, TruthPhoto, TruthSet, existing, read_instances
from train.evaluation.runner import evenly_spaced
from train.mining.features import RegionFilter
from train.mining.work_folder import record_settings

TRAINABLE = ("coco-train", "coco-train-official")
"""The sets with truth that may be trained on; the others are for evaluation alone."""


@dataclass(frozen=True)
class TruePairSettings:
    """Write region-noun pairs from true masks and the names of their classes (see train/README.md)."""

    out: Path = Path("runs/true_pairs")
    """Folder for the shards, their manifest and the contact sheet."""
    data_set: str = "coco-train"
    """coco-train or coco-train-official."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    instances: Path | None = None
    """Your own truth instead of --data-set: instances in COCO's JSON format."""
    images: Path | None = None
    """Folder of the photos of --instances."""
    hold_out: int = 0
    """So many photos, spread evenly, are left out: those that `train.calibrate --photos` of the same number
    then looks at."""
    leave_out_fold_0: bool = True
    """Leave out the photos of fold 0 of the named regions, which no stage trains on."""
    max_side_px: int = 640
    """Larger photos are made smaller first."""
    least_area: float = 0.0
    """Smaller regions are passed over (fraction of the photo)."""
    least_side_px: int = 12
    """Regions whose box has a shorter side are passed over."""
    per_shard: int = 4096
    """Pairs per shard, about."""
    image_format: ImageFormat = "webp"
    """How crops are stored; png keeps every bit."""

    def __post_init__(self) -> None:
        if self.per_shard < 1:
            raise SettingsError(f"--per-shard must be at least 1, not {self.per_shard}.")

    def truth(self) -> TruthSet:
        """The photos with truth.

        Raises:
            DataError: the set is unknown, for evaluation only, or not there.
        """
        if self.instances is not None:
            if self.images is None:
                raise DataError(f"--instances {self.instances} needs its photos' folder: give --images.")
            return read_instances(self.instances.stem, [(existing(self.instances), existing(self.images))])
        if self.data_set not in TRAINABLE:
            raise DataError(
                f"{self.data_set!r} is not to be trained on: choose {' or '.join(TRAINABLE)}, "
                "or give --instances and --images."
            )
        return TRUTH_SETS[self.data_set](self.data)


def photo_pairs(photo: TruthPhoto, truth: TruthSet, settings: TruePairSettings) -> list[Pair]:
    """The pairs of one photo, in the order of its truth.

    Raises:
        ImageError: the photo does not decode.
    """
    image = resize_to_side(photo.read(), settings.max_side_px)
    height, width = image.shape[:2]
    segments = photo.read_segments()
    if not segments:
        return []
    masks = np.stack(
        [
            cv2.resize(one.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
            for one in segments
        ]
    )
    usable = RegionFilter(settings.least_area, 1.0, settings.least_side_px).usable(masks)
    return [
        cut_pair(
            image,
            masks[k],
            noun=truth.classes[segments[k].class_index],
            photo=f"{truth.name}/{photo.path.stem}",
            score=1.0,
            cosine=0.0,
            margin=0.0,
            quality=1.0,
            photo_path=path_below(photo.path, settings.data),
        )
        for k in usable
    ]


def main(settings: TruePairSettings) -> None:
    """Write shards, manifest and contact sheet."""
    truth = settings.truth()
    record_settings(
        settings.out, {k: v for k, v in asdict(settings).items() if k not in ("out", "data")}, "--out"
    )
    photos = _photos(truth, settings)
    skipped: list[dict[str, str]] = []
    counts = write_shards(
        settings.out,
        _pairs_by_photo(photos, truth, settings, skipped),
        per_shard=settings.per_shard,
        image_format=settings.image_format,
        about={"settings": {name: str(value) for name, value in asdict(settings).items() if name != "data"}},
        photos={truth.name: len(photos)},
        skipped=skipped,
    )
    report_shards(settings.out, counts, skipped)


def _photos(truth: TruthSet, settings: TruePairSettings) -> list[TruthPhoto]:
    """The photos that are not held out."""
    spaced = evenly_spaced(truth.photos, settings.hold_out) if settings.hold_out else []
    left_out = {photo.path for photo in spaced}
    fold_0 = held_out_photos(settings.data) if settings.leave_out_fold_0 else frozenset()
    return [
        photo for photo in truth.photos if photo.path not in left_out and photo_key(photo.path) not in fold_0
    ]


def _pairs_by_photo(
    photos: Sequence[TruthPhoto],
    truth: TruthSet,
    settings: TruePairSettings,
    skipped: list[dict[str, str]],
) -> Iterator[list[Pair]]:
    for photo in tqdm(photos, desc=truth.name, disable=None):
        try:
            yield photo_pairs(photo, truth, settings)
        except ImageError as error:
            skipped.append({"photo": photo.path.name, "error": str(error)})


if __name__ == "__main__":
    run_command(main, TruePairSettings, prog="train.true_pairs")
