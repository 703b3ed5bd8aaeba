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
import torch
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.imaging import load_image
from train.data.pair_index import PairIndex, RegionTable, read_index
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


@dataclass(frozen=True, eq=False)
class _Part:
    """The regions of one folder that are used: rows of a table of its index."""

    index: PairIndex
    table: RegionTable
    rows: NDArray[np.int64]


class _Regions(Sequence[T]):
    """The regions of several folders, one folder after the other; what is told of each is made when asked."""

    def __init__(self, parts: Sequence[_Part], make: Callable[[_Part, int], T]) -> None:
        self.parts, self._make = parts, make
        self._ends = np.cumsum([len(part.rows) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, row: int) -> T: ...

    @overload
    def __getitem__(self, row: slice) -> list[T]: ...

    def __getitem__(self, row: int | slice) -> T | list[T]:
        if isinstance(row, slice):
            return [self._make(*self.locate(i)) for i in range(len(self))[row]]
        return self._make(*self.locate(row))

    def locate(self, row: int) -> tuple[_Part, int]:
        """The folder of a region, and its row in the table there."""
        row = range(len(self))[row]
        number = int(np.searchsorted(self._ends, row, side="right"))
        part = self.parts[number]
        return part, int(part.rows[row - int(self._ends[number])])


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
        indices = [read_index(folder) for folder in folders]
        self._named = _Regions(
            [_Part(one, one.named, np.flatnonzero(one.named.score >= least_score)) for one in indices], _photo
        )
        self._unlabeled = _Regions(
            [_Part(one, one.unlabeled, np.arange(len(one.unlabeled))) for one in indices], _candidates
        )
        if not len(self._named):
            named = " and ".join(map(str, folders)) or "No folder"
            raise DataError(f"{named} holds no pair of score {least_score} or more; mine more photos.")
        self.nouns, self.right, self.ignored = _noun_bank(self._named.parts)
        self.noun_of: NDArray[np.int64] = self.right[:, 0].numpy()
        self.photos: Sequence[PhotoPlace] = self._named
        self.candidate_nouns: Sequence[tuple[str, ...]] = self._unlabeled
        hashes = [digest for one in indices for digest in one.digests]
        unlabeled_hashes = [digest for one in indices for digest in one.unlabeled_digests]
        self.unlabeled_digest = hashlib.sha256(json.dumps(unlabeled_hashes).encode()).hexdigest()
        self.digest = hashlib.sha256(json.dumps([hashes, least_score]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._named)

    def crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The box of a pair, (h, w, 3) uint8 with its background, and the region in it, (h, w) bool."""
        return _crop(*self._named.locate(row))

    def mask(self, row: int) -> NDArray[np.bool_]:
        """The region of a pair in its box, (h, w) bool."""
        part, at = self._named.locate(row)
        with part.index.shards[part.table.shard[at]].open("rb") as file:
            return _mask(_read(file, *part.table.places[at, 2:].tolist()))

    def unlabeled_crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As `crop`, for a region without a noun, a row of `candidate_nouns`."""
        return _crop(*self._unlabeled.locate(row))


def _noun_bank(parts: Sequence[_Part]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """`nouns`, `right` and `ignored` of a `PairFolder`."""
    right = [part.table.names.padded(part.rows) for part in parts]
    ignored = [part.table.part_of.padded(part.rows) for part in parts]
    texts = [
        {row: part.index.text(row) for row in np.unique(rows[rows >= 0]).tolist()}
        for part, rows in zip(parts, right, strict=True)
    ]
    nouns = sorted({text for some in texts for text in some.values()})
    row_of = {noun: row for row, noun in enumerate(nouns)}
    for number, part in enumerate(parts):
        for table in (right, ignored):
            # Row -1 is the last one.
            in_bank = np.full(len(part.index.texts) + 1, -1, dtype=np.int32)
            for row in np.unique(table[number]).tolist():
                in_bank[row] = row_of.get(part.index.text(row), -1) if row >= 0 else -1
            table[number] = in_bank[table[number]]
    return nouns, _joined(right), _joined(ignored)


def _joined(tables: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    """Tables of rows one after the other, int64; -1 = none stands last in each row."""
    width = max([1, *(int((table >= 0).sum(1).max(initial=0)) for table in tables)])
    joined = np.full((sum(map(len, tables)), width), -1, dtype=np.int64)
    start = 0
    for table in tables:
        some = np.take_along_axis(table, np.argsort(table < 0, axis=1, kind="stable"), axis=1)[:, :width]
        joined[start : start + len(table), : some.shape[1]] = some
        start += len(table)
    return torch.from_numpy(joined)


def _photo(part: _Part, at: int) -> PhotoPlace:
    """Where a pair lies in its photo."""
    height, width = part.table.size[at].tolist()
    left, top, right, bottom = part.table.box[at].tolist()
    return PhotoPlace(part.index.text(part.table.photo[at]), (height, width), (left, top, right, bottom))


def _candidates(part: _Part, at: int) -> tuple[str, ...]:
    """Nouns that a region without a noun may show."""
    return tuple(part.index.text(text) for text in part.table.candidate_nouns[at])


def _crop(part: _Part, at: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    place, size, mask_place, mask_size = part.table.places[at].tolist()
    with part.index.shards[part.table.shard[at]].open("rb") as file:
        return load_image(_read(file, place, size)), _mask(_read(file, mask_place, mask_size))


def _mask(content: bytes) -> NDArray[np.bool_]:
    return np.asarray(Image.open(io.BytesIO(content))) > 0


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
