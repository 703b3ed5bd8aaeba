"""Folders of pairs that any pair can be read from, in any order, without unpacking them.

Beside its pairs a folder may hold regions that no noun was given to (train/mining/unlabeled_regions.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.imaging import load_image
from train.core.loss import padded_rows
from train.data.shards import read_manifest
from train.data.sources import DataError


@dataclass(frozen=True)
class PhotoPlace:
    """Where a region lies in its photo.

    Attributes:
        path: of the photo below the data folder; empty if the shard does not say it.
        size: height and width in pixels of the photo as it was mined.
        box: left, top, right, bottom in pixels of that photo; right and bottom exclusive.
    """

    path: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class _RegionLocation:
    """Where a region lies: shard, then offset and size of the crop and of its mask; and what it is."""

    shard: Path
    image: tuple[int, int]
    mask: tuple[int, int]
    noun: str
    score: float
    candidate_nouns: tuple[str, ...]
    synonyms: tuple[str, ...]
    part_of: tuple[str, ...]
    photo: PhotoPlace


class PairFolder:
    """Pairs of one folder or several, with random access.

    Attributes:
        nouns: the noun bank, sorted: every name that is right for a pair.
        noun_of: (P,) int64, row of the bank for each pair; of several names the natural one.
        right: (P, R) int64, rows of all right names of each pair, the natural one first, -1 = none.
        ignored: (P, I) int64, rows of names that are neither right nor wrong for a pair, -1 = none.
        photos: of each pair, where it lies in its photo.
        candidate_nouns: per region without a noun, those of its photo's nouns that it may show.
        digest, unlabeled_digest: of the pairs, and of the regions without a noun.

    Args:
        folders: what train.mine_pairs or train.true_pairs wrote.
        least_score: pairs below this confidence are left out.

    Raises:
        DataError: the manifest or a shard is missing, a shard is not the one of the manifest, or no pair is
            left.
    """

    def __init__(self, *folders: Path, least_score: float = 0.0) -> None:
        self._named: list[_RegionLocation] = []
        self._unlabeled: list[_RegionLocation] = []
        hashes: list[str] = []
        unlabeled_hashes: list[str] = []
        for folder in folders:
            manifest = read_manifest(folder)
            for shard in manifest["shards"]:
                for one in _listed(folder / shard["name"], shard["pairs"]):
                    if one.score >= least_score:
                        self._named.append(one)
                hashes.append(shard["sha256"])
            for shard in manifest.get("unnamed", ()):
                self._unlabeled += _listed(folder / shard["name"], shard["regions"])
                unlabeled_hashes.append(shard["sha256"])
        if not self._named:
            named = " and ".join(map(str, folders)) or "No folder"
            raise DataError(f"{named} holds no pair of score {least_score} or more; mine more photos.")
        names = [(one.noun, *one.synonyms) for one in self._named]
        self.nouns = sorted({name for some in names for name in some})
        row = {noun: i for i, noun in enumerate(self.nouns)}
        self.right = padded_rows([[row[name] for name in dict.fromkeys(some)] for some in names])
        self.ignored = padded_rows([[row[n] for n in one.part_of if n in row] for one in self._named])
        self.noun_of: NDArray[np.int64] = self.right[:, 0].numpy()
        self.photos = [one.photo for one in self._named]
        self.candidate_nouns = [one.candidate_nouns for one in self._unlabeled]
        self.unlabeled_digest = hashlib.sha256(json.dumps(unlabeled_hashes).encode()).hexdigest()
        self.digest = hashlib.sha256(json.dumps([hashes, least_score]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._named)

    def crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The box of a pair, (h, w, 3) uint8 with its background, and the region in it, (h, w) bool."""
        return _crop(self._named[row])

    def mask(self, row: int) -> NDArray[np.bool_]:
        """The region of a pair in its box, (h, w) bool."""
        place = self._named[row]
        with place.shard.open("rb") as file:
            return _read_mask(file, place)

    def unlabeled_crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The same of a region without a noun, a row of `candidate_nouns`."""
        return _crop(self._unlabeled[row])


def _crop(place: _RegionLocation) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    with place.shard.open("rb") as file:
        return load_image(_read(file, *place.image)), _read_mask(file, place)


def _read_mask(file: io.BufferedReader, place: _RegionLocation) -> NDArray[np.bool_]:
    return np.asarray(Image.open(io.BytesIO(_read(file, *place.mask)))) > 0


def _listed(path: Path, count: int) -> list[_RegionLocation]:
    """The regions of a shard, if they are as many as the manifest says."""
    places = list(_index(path))
    if len(places) != count:
        raise DataError(
            f"{path} holds {len(places):,} regions and its manifest says {count:,}: a mining was stopped "
            "before its end; run it again."
        )
    return places


def _index(path: Path) -> Iterator[_RegionLocation]:
    """Where each region of a shard lies."""
    try:
        with tarfile.open(path) as tar:
            places: dict[str, tuple[int, int]] = {}
            for entry in tar:
                ending = entry.name.partition(".")[2]
                places[ending] = (entry.offset_data, entry.size)
                if ending != "json":
                    continue
                member = tar.extractfile(entry)
                facts = json.loads(member.read() if member else b"{}")
                image = next(where for kind, where in places.items() if kind not in ("mask.png", "json"))
                # Earlier shards call it may_be.
                candidate_nouns = tuple(facts.get("may_be", facts.get("candidate_nouns", ())))
                size, box = tuple(facts["photo_size"]), tuple(facts["box"])
                yield _RegionLocation(
                    path,
                    image,
                    places["mask.png"],
                    facts["noun"],
                    facts["score"],
                    candidate_nouns,
                    tuple(facts.get("synonyms", ())),
                    tuple(facts.get("part_of", ())),
                    PhotoPlace(facts.get("photo_path", ""), size, box),
                )
                places = {}
    except (tarfile.TarError, OSError, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"{path} cannot be read as a shard ({error}); mine it again.") from error


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
