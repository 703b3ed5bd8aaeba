"""Folders of pairs that any pair can be read from, in any order, without unpacking them.

Beside its pairs a folder may hold regions that no noun was given to (train/mining/unlabeled_regions.py).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.imaging import load_image
from train.data.pair_index import RegionTable, read_index
from train.data.sources import DataError

T = TypeVar("T")


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


class _Rows(Sequence[T]):
    """So many values, each made when it is asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> T: ...

    @overload
    def __getitem__(self, row: slice) -> list[T]: ...

    def __getitem__(self, row: int | slice) -> T | list[T]:
        if isinstance(row, slice):
            return [self._make(i) for i in range(self._count)[row]]
        return self._make(range(self._count)[row])


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
        self._shards: list[Path] = []
        texts: dict[str, int] = {}
        tables: dict[str, list[RegionTable]] = {"named": [], "unlabeled": []}
        hashes: list[str] = []
        unlabeled_hashes: list[str] = []
        for folder in folders:
            index = read_index(folder)
            rows = np.array([texts.setdefault(text, len(texts)) for text in index.texts], dtype=np.int32)
            chosen = index.named.select(np.flatnonzero(index.named.score >= least_score))
            tables["named"].append(chosen.renumbered(rows, len(self._shards)))
            tables["unlabeled"].append(index.unlabeled.renumbered(rows, len(self._shards)))
            self._shards += index.shards
            hashes += index.digests
            unlabeled_hashes += index.unlabeled_digests
        self._named, self._unlabeled = (RegionTable.joined(some) for some in tables.values())
        if not len(self._named):
            named = " and ".join(map(str, folders)) or "No folder"
            raise DataError(f"{named} holds no pair of score {least_score} or more; mine more photos.")
        self._texts = words = tuple(texts)
        used = [words[text] for text in np.unique(self._named.names.values)]
        self.nouns = sorted(used)
        row = {noun: i for i, noun in enumerate(self.nouns)}
        in_bank = np.array([row.get(word, -1) for word in words], dtype=np.int32)
        self.right = self._named.names.renamed(in_bank).padded()
        self.ignored = self._named.part_of.renamed(in_bank).padded()
        self.noun_of: NDArray[np.int64] = self.right[:, 0].numpy()
        self.photos: Sequence[PhotoPlace] = _Rows(len(self._named), self._photo)
        self.candidate_nouns: Sequence[tuple[str, ...]] = _Rows(len(self._unlabeled), self._candidates)
        self.unlabeled_digest = hashlib.sha256(json.dumps(unlabeled_hashes).encode()).hexdigest()
        self.digest = hashlib.sha256(json.dumps([hashes, least_score]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._named)

    def crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The box of a pair, (h, w, 3) uint8 with its background, and the region in it, (h, w) bool."""
        return self._crop(self._named, row)

    def mask(self, row: int) -> NDArray[np.bool_]:
        """The region of a pair in its box, (h, w) bool."""
        at, size = self._named.places[row, 2:].tolist()
        with self._shards[self._named.shard[row]].open("rb") as file:
            return _mask(_read(file, at, size))

    def unlabeled_crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The same of a region without a noun, a row of `candidate_nouns`."""
        return self._crop(self._unlabeled, row)

    def _photo(self, row: int) -> PhotoPlace:
        """Where a pair lies in its photo."""
        table = self._named
        (height, width), (left, top, right, bottom) = table.size[row].tolist(), table.box[row].tolist()
        (path,) = table.photo[row]
        return PhotoPlace(self._texts[path], (height, width), (left, top, right, bottom))

    def _candidates(self, row: int) -> tuple[str, ...]:
        """Nouns that a region without a noun may be."""
        return tuple(self._texts[text] for text in self._unlabeled.candidate_nouns[row])

    def _crop(self, table: RegionTable, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        at, size, mask_at, mask_size = table.places[row].tolist()
        with self._shards[table.shard[row]].open("rb") as file:
            return load_image(_read(file, at, size)), _mask(_read(file, mask_at, mask_size))


def _mask(content: bytes) -> NDArray[np.bool_]:
    return np.asarray(Image.open(io.BytesIO(content))) > 0


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
