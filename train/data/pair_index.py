"""The index of a folder of pairs: where each region lies in its shards and what it is, as columns.

Reading this from the tar files takes minutes for a million pairs, and a million objects take half a gigabyte.
It is written once, beside the manifest, and read from there as long as manifest and shards stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ovseg_demo.errors import OutputError
from train.core.files import write_tensors
from train.data.shards import read_manifest
from train.data.sources import DataError

__all__ = ["Lists", "PairIndex", "RegionTable", "read_index"]

_log = logging.getLogger(__name__)

INDEX = "index.safetensors"
_LAYOUT = 1
"""Of the file; another number makes earlier files stale."""
_NUMBERS: dict[str, type[np.generic]] = {
    "shard": np.int32,
    "places": np.int64,
    "score": np.float64,
    "size": np.int32,
    "box": np.int32,
}
_TEXTS = ("names", "part_of", "candidate_nouns", "photo")


@dataclass(frozen=True)
class Lists:
    """Lists of whole numbers of any lengths.

    Attributes:
        starts: (N + 1,) int64, where each list begins in `values`.
        values: (L,) int32, the lists one after the other.
    """

    starts: NDArray[np.int64]
    values: NDArray[np.int32]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Lists:
        """From lists."""
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(starts, np.array([value for some in lists for value in some], dtype=np.int32))

    @classmethod
    def joined(cls, parts: Sequence[Lists]) -> Lists:
        """The lists of all parts, one part after the other."""
        lengths = [np.zeros(1, np.int64), *(np.diff(part.starts) for part in parts)]
        values = [np.zeros(0, np.int32), *(part.values for part in parts)]
        return cls(np.cumsum(np.concatenate(lengths)), np.concatenate(values))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> list[int]:
        values: list[int] = self.values[self.starts[row] : self.starts[row + 1]].tolist()
        return values

    def select(self, rows: NDArray[np.int64]) -> Lists:
        """The lists of some rows."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return Lists(starts, self.values[np.repeat(self.starts[:-1][rows], lengths) + within])

    def renamed(self, new: NDArray[np.int32]) -> Lists:
        """Every value v as `new[v]`; those that are below 0 then are left out."""
        values = new[self.values]
        kept = values >= 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return Lists(before[self.starts], values[kept])

    def padded(self) -> torch.Tensor:
        """(N, longest) int64, filled up with -1; at least one column."""
        lengths = np.diff(self.starts)
        table = np.full((len(self), int(lengths.max(initial=1))), -1, dtype=np.int64)
        columns = np.arange(len(self.values)) - np.repeat(self.starts[:-1], lengths)
        table[np.repeat(np.arange(len(self)), lengths), columns] = self.values
        return torch.from_numpy(table)


@dataclass(frozen=True)
class RegionTable:
    """Regions, one a row.

    Attributes:
        shard: (N,) int32, row of the shard.
        places: (N, 4) int64, offset and size in bytes of the crop, and those of its mask.
        score: (N,) float64.
        size: (N, 2) int32, height and width of the photo.
        box: (N, 4) int32, in that photo.
        names: rows of the texts that are right, the natural one first; none for a region without a noun.
        part_of, candidate_nouns: rows of texts.
        photo: row of the text with the photo's path.
    """

    shard: NDArray[np.int32]
    places: NDArray[np.int64]
    score: NDArray[np.float64]
    size: NDArray[np.int32]
    box: NDArray[np.int32]
    names: Lists
    part_of: Lists
    candidate_nouns: Lists
    photo: Lists

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def joined(cls, parts: Sequence[RegionTable]) -> RegionTable:
        """The regions of all parts, one part after the other."""
        parts = [cls.of([]), *parts]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _NUMBERS
        }
        columns |= {name: Lists.joined([getattr(part, name) for part in parts]) for name in _TEXTS}
        return cls(**columns)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> RegionTable:
        """From rows with one value a column."""
        width = {"places": (4,), "size": (2,), "box": (4,)}
        columns: dict[str, Any] = {
            name: np.array([row[name] for row in rows], dtype=kind).reshape(-1, *width.get(name, ()))
            for name, kind in _NUMBERS.items()
        }
        columns |= {name: Lists.of([row[name] for row in rows]) for name in _TEXTS}
        return cls(**columns)

    def select(self, rows: NDArray[np.int64]) -> RegionTable:
        """Some of the regions."""
        if len(rows) == len(self):
            return self
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in _NUMBERS}
        return RegionTable(**columns, **{name: getattr(self, name).select(rows) for name in _TEXTS})

    def renumbered(self, texts: NDArray[np.int32], first_shard: int) -> RegionTable:
        """With other rows of texts, and shards that are counted from another number on."""
        lists: dict[str, Any] = {name: getattr(self, name).renamed(texts) for name in _TEXTS}
        return replace(self, shard=self.shard + np.int32(first_shard), **lists)

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """All arrays by name."""
        for name in _NUMBERS:
            yield name, getattr(self, name)
        for name in _TEXTS:
            lists = getattr(self, name)
            yield f"{name}.starts", lists.starts
            yield f"{name}.values", lists.values

    @classmethod
    def of_columns(cls, columns: Mapping[str, NDArray[Any]]) -> RegionTable:
        """What `columns` gave."""
        own: dict[str, Any] = {name: columns[name] for name in _NUMBERS}
        own |= {name: Lists(columns[f"{name}.starts"], columns[f"{name}.values"]) for name in _TEXTS}
        return cls(**own)


@dataclass(frozen=True)
class PairIndex:
    """What a folder holds.

    Attributes:
        shards: the files; those of the pairs, then those of the regions without a noun.
        texts: names and paths of photos that the tables speak of.
        named, unlabeled: the pairs, and the regions without a noun.
        digests, unlabeled_digests: sha256 of the shards of each.
    """

    shards: tuple[Path, ...]
    texts: tuple[str, ...]
    named: RegionTable
    unlabeled: RegionTable
    digests: tuple[str, ...]
    unlabeled_digests: tuple[str, ...]


def read_index(folder: Path) -> PairIndex:
    """The index of a folder, from its file or made anew.

    Raises:
        DataError: the manifest or a shard is missing or damaged, or a shard is not the one of the manifest.
    """
    manifest = read_manifest(folder)
    listed = [(shard, "pairs") for shard in manifest["shards"]]
    listed += [(shard, "regions") for shard in manifest.get("unnamed", ())]
    shards = [folder / shard["name"] for shard, _ in listed]
    counts = [shard[kind] for shard, kind in listed]
    split = len(manifest["shards"])
    key = _key(listed, shards)
    kept = _from_file(folder / INDEX, key)
    if kept is None:
        texts: dict[str, int] = {}
        tables = [_table(path, number, counts[number], texts) for number, path in enumerate(shards)]
        kept = tuple(texts), RegionTable.joined(tables[:split]), RegionTable.joined(tables[split:])
        _to_file(folder / INDEX, key, *kept)
    digests = [shard["sha256"] for shard, _ in listed]
    return PairIndex(tuple(shards), *kept, tuple(digests[:split]), tuple(digests[split:]))


# --- the file --------------------------------------------------------------------------------------------


def _key(listed: Sequence[tuple[dict[str, Any], str]], shards: Sequence[Path]) -> str:
    """What the manifest says of the shards, and how large they are and when they were last written."""
    seen = []
    for (shard, kind), path in zip(listed, shards, strict=True):
        try:
            info = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        seen.append([kind, shard["name"], shard[kind], shard["sha256"], info.st_size, info.st_mtime_ns])
    return hashlib.sha256(json.dumps([_LAYOUT, seen]).encode()).hexdigest()


def _from_file(path: Path, key: str) -> tuple[tuple[str, ...], RegionTable, RegionTable] | None:
    """The texts and both tables; None if there is no file, or it is damaged or of other shards."""
    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (OSError, SafetensorError):
        return None
    texts = tuple(json.loads(columns.pop("texts").tobytes()))
    named, unlabeled = (
        RegionTable.of_columns(
            {name.removeprefix(kind): value for name, value in columns.items() if name.startswith(kind)}
        )
        for kind in ("named/", "unlabeled/")
    )
    return texts, named, unlabeled


def _to_file(
    path: Path, key: str, texts: tuple[str, ...], named: RegionTable, unlabeled: RegionTable
) -> None:
    columns = {"texts": np.frombuffer(json.dumps(texts).encode(), np.uint8).copy()}
    for kind, table in (("named", named), ("unlabeled", unlabeled)):
        columns |= {f"{kind}/{name}": np.ascontiguousarray(value) for name, value in table.columns()}
    try:
        write_tensors(path, {k: torch.from_numpy(value) for k, value in columns.items()}, {"key": key})
    except OutputError as error:
        _log.warning("The pairs are listed anew at every start: %s", error)


# --- the shards ------------------------------------------------------------------------------------------


def _table(path: Path, number: int, count: int, texts: dict[str, int]) -> RegionTable:
    """The regions of a shard, if they are as many as the manifest says; new texts are added to `texts`."""

    def rows_of(some: Sequence[str]) -> list[int]:
        return [texts.setdefault(text, len(texts)) for text in dict.fromkeys(some)]

    rows = []
    for places, facts in _read_shard(path):
        noun, synonyms = facts["noun"], facts.get("synonyms", ())
        rows.append(
            {
                "shard": number,
                "places": places,
                "score": facts["score"],
                "size": facts["photo_size"],
                "box": facts["box"],
                "names": rows_of([noun, *synonyms] if noun else []),
                "part_of": rows_of(facts.get("part_of", ())),
                # Earlier shards call it may_be.
                "candidate_nouns": rows_of(facts.get("may_be", facts.get("candidate_nouns", ()))),
                "photo": rows_of([facts.get("photo_path", "")]),
            }
        )
    if len(rows) != count:
        raise DataError(
            f"{path} holds {len(rows):,} regions and its manifest says {count:,}: a mining was stopped "
            "before its end; run it again."
        )
    try:
        return RegionTable.of(rows)
    except (ValueError, TypeError) as error:
        raise _unreadable(path, error) from error


def _read_shard(path: Path) -> Iterator[tuple[tuple[int, int, int, int], dict[str, Any]]]:
    """Offset and size in bytes of each crop and of its mask, and the region's facts."""
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
                facts["noun"], facts["score"], facts["photo_size"], facts["box"]
                yield (*image, *places["mask.png"]), facts
                places = {}
    except (tarfile.TarError, OSError, ValueError, KeyError, StopIteration) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a shard ({error}); mine it again.")
