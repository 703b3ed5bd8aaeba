"""Training pairs from regions that are named in everyday English: several right names a region.

    python -m train.named_pairs --out runs/named_pairs

Same shards as mined pairs and true ones; a pair's facts also hold its synonyms and what it is a part of.
Unclear regions are left out, and so is fold 0, which is for choosing and calibrating.
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
from train.data.named_regions import INHERIT_IOU, TRAINING_FOLDS, NamedPhoto, inherit_names, training_regions
from train.data.shards import ImageFormat, Pair, cut_pair, write_shards
from train.mining.work_folder import record_settings


@dataclass(frozen=True)
class NamedPairSettings:
    """Write region-noun pairs from the named regions (see train/README.md)."""

    out: Path = Path("runs/named_pairs")
    """Folder for the shards, their manifest and the contact sheet."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    folds: tuple[int, ...] = TRAINING_FOLDS
    """Folds of the photos, 1 to 9; fold 0 is refused."""
    inherit: float = INHERIT_IOU
    """Unnamed proposals that meet a named one by an IoU over this take its names; 1 = none does."""
    max_side_px: int = 640
    """Larger photos are made smaller first."""
    per_shard: int = 4096
    """Pairs per shard, about."""
    image_format: ImageFormat = "webp"
    """How crops are stored; png keeps every bit."""

    def __post_init__(self) -> None:
        if not 0 < self.inherit <= 1:
            raise SettingsError(f"--inherit must be above 0 and at most 1, not {self.inherit}.")
        if self.per_shard < 1:
            raise SettingsError(f"--per-shard must be at least 1, not {self.per_shard}.")


def photo_pairs(photo: NamedPhoto, settings: NamedPairSettings) -> list[Pair]:
    """The pairs of one photo, in the order of its regions.

    Raises:
        ImageError: the photo does not decode.
        DataError: a mask does not fit the photo.
    """
    image = resize_to_side(photo.read(), settings.max_side_px)
    size = (image.shape[1], image.shape[0])
    pairs = []
    for region in inherit_names(photo, settings.inherit).named():
        mask = region.mask()
        if mask.shape != image.shape[:2]:
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
        noun, *synonyms = region.names or ()
        if mask.any():
            pairs.append(
                cut_pair(
                    image,
                    mask,
                    noun=noun,
                    photo=f"{photo.source.source}/{photo.source.path.stem}",
                    score=1.0,
                    cosine=0.0,
                    margin=0.0,
                    quality=region.quality,
                    synonyms=synonyms,
                    part_of=region.part_of,
                    photo_path=photo.name,
                )
            )
    return pairs


def main(settings: NamedPairSettings) -> None:
    """Write shards, manifest and contact sheet."""
    photos = training_regions(settings.data, settings.folds)
    how = {name: value for name, value in asdict(settings).items() if name not in ("out", "data")}
    record_settings(settings.out, how, "--out")
    skipped: list[dict[str, str]] = []
    counts = write_shards(
        settings.out,
        _pairs_by_photo(photos, settings, skipped),
        per_shard=settings.per_shard,
        image_format=settings.image_format,
        about={"settings": {name: str(value) for name, value in how.items()}},
        photos={"named_regions": len(photos)},
        skipped=skipped,
    )
    report_shards(settings.out, counts, skipped)


def _pairs_by_photo(
    photos: Sequence[NamedPhoto], settings: NamedPairSettings, skipped: list[dict[str, str]]
) -> Iterator[list[Pair]]:
    for photo in tqdm(photos, desc="named regions", disable=None):
        try:
            yield photo_pairs(photo, settings)
        except ImageError as error:
            skipped.append({"photo": photo.name, "error": str(error)})


if __name__ == "__main__":
    run_command(main, NamedPairSettings, prog="train.named_pairs")
