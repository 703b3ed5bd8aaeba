"""Write the bank of names into the context arm of an ovseg-mini: known regions that vote for names.

    python -m train.name_bank

Known regions are the named regions of folds 1 to 9, with those that inherit a name, and COCO's true masks.
The context arm embeds them as it embeds a visitor's photo. Their features lie in few of its dimensions, so
that they are kept in the DIMENSIONS with the most of them (ovseg_demo/clip/name_bank.py has the formula).
The features of a photo are kept in --features-cache, and a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.name_bank import NameBank
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.vocabulary import fold
from train.core.options import DEFAULT_DATA, run_command
from train.data.named_regions import NamedRegion, held_out_photos, inherit_names, photo_key, training_regions
from train.data.true_regions import true_regions
from train.data.truth import TRUTH_SETS
from train.evaluation.calibration_data import photo_features
from train.evaluation.free_words import stored_proposals
from train.evaluation.runner import evenly_spaced
from train.exporting.weights import save_bank
from train.mining.nouns import singular

Known = tuple[NDArray[np.float32], tuple[str, ...]]
"""(D,) feature of a region and its names."""


@dataclass(frozen=True)
class NameBankSettings:
    """Let known regions vote for names: write their features beside the head of the context arm."""

    model: Path = Path("checkpoints/ovseg-mini")
    """Folder of an ovseg-mini; its context.safetensors is written anew."""
    data: Path = DEFAULT_DATA
    """Folder that holds named_regions, the photos it names, and coco_subset."""
    dimensions: int = 128
    """Of the features that are kept."""
    true_masks: bool = True
    """COCO's true masks with the names of their classes as well."""
    photos: int = 0
    """Only so many photos of each kind, spread evenly; 0 = all."""
    features_cache: Path | None = None
    """Folder that keeps the features of photos between runs."""

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise SettingsError(f"--dimensions must be at least 1, not {self.dimensions}.")


def named_regions_of(classifier: Classifier, settings: NameBankSettings) -> Iterator[Known]:
    """The named regions that may be trained on."""
    photos = evenly_spaced(training_regions(settings.data), settings.photos)
    for photo in tqdm(photos, desc="named regions", disable=None):
        regions: tuple[NamedRegion, ...] = inherit_names(photo).regions
        features = photo_features(classifier, photo, stored_proposals(photo), settings.features_cache)
        for row, region in zip(features.regions, regions, strict=True):
            if region.names:
                yield row, region.names


def true_masks_of(classifier: Classifier, settings: NameBankSettings) -> Iterator[Known]:
    """The true masks of COCO's training photos outside fold 0."""
    truth = TRUTH_SETS["coco-train"](settings.data)
    held_out = held_out_photos(settings.data)
    photos = [photo for photo in truth.photos if photo_key(photo.path) not in held_out]
    chosen = type(truth)(truth.name, truth.classes, tuple(evenly_spaced(photos, settings.photos)))
    for batch in true_regions(chosen, masked=True, photos=0):
        rows = classifier.clip.encode_photo_regions(batch.image, batch.masks).cpu().numpy()
        for row, number in zip(rows, batch.classes.tolist(), strict=True):
            yield row, (truth.classes[number],)


def bank_from(known: Iterable[Known], dimensions: int) -> NameBank:
    """Put known regions together.

    Args:
        known: regions and their names.
        dimensions: as many as are kept, those in which the features are longest.

    Raises:
        SettingsError: there are fewer dimensions than that, or no regions.
    """
    features, names = zip(*known, strict=True)
    rows = np.stack(features).astype(np.float32)
    if not dimensions <= rows.shape[1]:
        raise SettingsError(f"--dimensions {dimensions} is more than the {rows.shape[1]} that there are.")
    # Of the features themselves, not around their mean: it is their cosines that are to be kept.
    _, directions = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    projection = np.ascontiguousarray(directions[:, : -dimensions - 1 : -1]).astype(np.float32)
    points = rows @ projection
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    columns: dict[str, int] = {}
    forms = _forms({fold(name) for own in names for name in own})
    pairs = [
        (row, columns.setdefault(name, len(columns)))
        for row, own in enumerate(names)
        for name in sorted({form for one in own for form in forms[fold(one)]})
    ]
    return NameBank(projection, points, list(columns), np.array(pairs, dtype=np.int64))


def _forms(names: Iterable[str]) -> dict[str, set[str]]:
    """Singular and plural of each name, as far as they are among the names: "leaf" and "leaves"."""
    alike: dict[str, set[str]] = {}
    for name in names:
        start, _, last = name.rpartition(" ")
        alike.setdefault(f"{start} {singular(last)}", set()).add(name)
    return {name: some for some in alike.values() for name in some}


@torch.inference_mode()
def name_bank(settings: NameBankSettings) -> None:
    """Embed the known regions, write the bank and say how large it is."""
    clip = load_clip(settings.model, weights="context").compute_in(fast_dtype(torch.device("cpu")))
    classifier = Classifier(clip)
    known = list(named_regions_of(classifier, settings))
    if settings.true_masks:
        known += true_masks_of(classifier, settings)
    bank = bank_from(known, settings.dimensions)
    path = save_bank(settings.model, bank)
    print(f"{path}: {len(bank.regions):,} known regions with {len(bank.names):,} names")


if __name__ == "__main__":
    run_command(name_bank, NameBankSettings, prog="train.name_bank")
