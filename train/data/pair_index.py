"""The index of a folder of pairs: where each region lies in its shards and what it is, as columns.

Reading this from the tar files takes minutes for a million pairs. It is written once, beside the manifest,
and read from there as long as manifest and shards stay as they are. Its columns are mapped into memory, so
processes that train on the same folder share them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_LAYOUT = 2
"""Of the file; another number makes earlier files stale."""
_NUMBERS: dict[str, tuple[type[np.generic], int]] = {
    "shard": (np.int32, 1),
    "places": (np.int64, 4),
    "score": (np.float64, 1),
    "size": (np.int32, 2),
    "box": (np.int32, 4),
    "photo": (np.int32, 1),
}
"""Number type and width of the columns with a fixed width."""
_LISTS = ("names", "part_of", "candidate_nouns")
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Lists:
    """Lists of whole numbers of any lengths.

    Attributes:
        starts: (N + 1,) int64, where each list begins in `values`.
        values: (L,) whole numbers, the lists one after the other.
    """

    starts: NDArray[np.int64]
    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.starts[row] : self.starts[row + 1]]

    def padded(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The lists of some rows, (n, longest) filled up with -1; at least one column."""
        first, end = self.starts[:-1][rows, None], self.starts[1:][rows, None]
        at = first + np.arange(max(1, int((end - first).max(initial=0))))
        table = np.full(at.shape, -1, dtype=np.int32)
        table[at < end] = self.values[at[at < end]]
        return table


@dataclass(frozen=True)
class RegionTable:
    """Regions, one a row.

    Attributes:
        shard: (N,) int32, row of the shard.
        places: (N, 4) int64, offset and size in bytes of the crop, and those of its mask.
        score: (N,) float64.
        size: (N, 2) int32, height and width of the photo.
        box: (N, 4) int32, in that photo.
        photo: (N,) int32, row of the text with the photo's path.
        names: rows of the texts that are right, the natural one first; none for a region without a noun.
        part_of, candidate_nouns: rows of texts.
    """

    shard: NDArray[np.int32]
    places: NDArray[np.int64]
    score: NDArray[np.float64]
    size: NDArray[np.int32]
    box: NDArray[np.int32]
    photo: NDArray[np.int32]
    names: Lists
    part_of: Lists
    candidate_nouns: Lists

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]], prefix: str) -> RegionTable:
        """From columns whose names begin with `prefix`; a list has one of starts and one of values."""
        own: dict[str, Any] = {name: columns[prefix + name] for name in _NUMBERS}
        for name in _LISTS:
            own[name] = Lists(columns[f"{prefix}{name}.starts"], columns[f"{prefix}{name}.values"])
        return cls(**own)


@dataclass(frozen=True)
class PairIndex:
    """What a folder holds.

    Attributes:
        shards: the files; those of the pairs, then those of the regions without a noun.
        texts: names and paths of photos that the tables refer to, in UTF-8.
        named, unlabeled: the pairs, and the regions without a noun.
        digests, unlabeled_digests: sha256 of the shards of each.
    """

    shards: tuple[Path, ...]
    texts: Lists
    named: RegionTable
    unlabeled: RegionTable
    digests: tuple[str, ...]
    unlabeled_digests: tuple[str, ...]

    def text(self, row: int) -> str:
        """One of the texts."""
        return self.texts[row].tobytes().decode()


def read_index(folder: Path) -> PairIndex:
    """The index of a folder, read from its file or built from the shards.

    Raises:
        DataError: the manifest or a shard is missing or damaged, or a shard is not the one of the manifest.
    """
    manifest = read_manifest(folder)
    listed = [(shard, "pairs") for shard in manifest["shards"]]
    # Earlier manifests call it unnamed.
    listed += [(shard, "regions") for shard in manifest.get("unlabeled", manifest.get("unnamed", ()))]
    shards = [folder / shard["name"] for shard, _ in listed]
    split = len(manifest["shards"])
    key = index_key(listed, shards)
    columns = read_columns(folder / INDEX, key)
    if columns is None:
        columns = _from_shards(shards, [shard[kind] for shard, kind in listed], split)
        write_columns(folder / INDEX, key, columns)
    digests = [shard["sha256"] for shard, _ in listed]
    return PairIndex(
        shards=tuple(shards),
        texts=Lists(columns["texts.starts"], columns["texts.values"]),
        named=RegionTable.of(columns, "named/"),
        unlabeled=RegionTable.of(columns, "unlabeled/"),
        digests=tuple(digests[:split]),
        unlabeled_digests=tuple(digests[split:]),
    )


# --- the file --------------------------------------------------------------------------------------------


def index_key(listed: Sequence[tuple[dict[str, Any], str]], shards: Sequence[Path]) -> str:
    """Digest of the manifest's entries and of each shard's size and time of change."""
    seen = []
    for (shard, kind), path in zip(listed, shards, strict=True):
        try:
            info = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        seen.append([kind, shard["name"], shard[kind], shard["sha256"], info.st_size, info.st_mtime_ns])
    return hashlib.sha256(json.dumps([_LAYOUT, seen]).encode()).hexdigest()


def read_columns(path: Path, key: str) -> Columns | None:
    """The columns, mapped; None if there is no file, or it is damaged or of other shards."""
    try:
        with safe_open(path, "pt") as file:  # as NumPy arrays they would be copied
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (OSError, SafetensorError):
        return None


def write_columns(path: Path, key: str, columns: Columns) -> None:
    """Write the columns; where that fails, the log says so and the shards are read again next time."""
    try:
        write_tensors(path, {name: torch.from_numpy(value) for name, value in columns.items()}, {"key": key})
    except OutputError as error:
        _log.warning("The pairs are listed anew at every start: %s", error)


# --- the shards ------------------------------------------------------------------------------------------


def _from_shards(shards: Sequence[Path], counts: Sequence[int], split: int) -> Columns:
    """The columns of both tables and of the texts; the pairs are in the first `split` shards."""
    texts: dict[str, int] = {}
    parts = [_shard_columns(path, row, counts[row], texts) for row, path in enumerate(shards)]
    encoded = [text.encode() for text in texts]
    columns: Columns = {
        "texts.starts": _starts([len(text) for text in encoded]),
        "texts.values": np.frombuffer(b"".join(encoded), np.uint8).copy(),
    }
    for prefix, some in (("named/", parts[:split]), ("unlabeled/", parts[split:])):
        some = [_columns([]), *some]
        joined = {name: np.concatenate([part[name] for part in some]) for name in some[0]}
        for name in _LISTS:
            joined[f"{name}.starts"] = _starts(joined.pop(f"{name}.lengths"))
        columns |= {prefix + name: value for name, value in joined.items()}
    return columns


def _starts(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of rows; a list has one of lengths and one of values."""
    columns: Columns = {
        name: np.array([row[name] for row in rows], dtype=kind).reshape((-1, width) if width > 1 else -1)
        for name, (kind, width) in _NUMBERS.items()
    }
    for name in _LISTS:
        columns[f"{name}.lengths"] = np.array([len(row[name]) for row in rows], dtype=np.int64)
        columns[f"{name}.values"] = np.array([v for row in rows for v in row[name]], dtype=np.int32)
    return columns


def _shard_columns(path: Path, number: int, count: int, texts: dict[str, int]) -> Columns:
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
                "photo": rows_of([facts.get("photo_path", "")])[0],
                "names": rows_of([noun, *synonyms] if noun else []),
                "part_of": rows_of(facts.get("part_of", ())),
                # Earlier shards call it may_be.
                "candidate_nouns": rows_of(facts.get("may_be", facts.get("candidate_nouns", ()))),
            }
        )
    if len(rows) != count:
        raise DataError(
            f"{path} holds {len(rows):,} regions and its manifest says {count:,}: a mining was stopped "
            "before its end; run it again."
        )
    try:
        return _columns(rows)
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
