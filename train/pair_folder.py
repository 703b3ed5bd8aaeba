"""Folders of pairs that any pair can be read from, in any order, without unpacking them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.imaging import load_image
from train.data.sources import DataError
from train.shards import read_manifest


@dataclass(frozen=True)
class _Place:
    """Where a pair lies: shard, then offset and size of the crop and of its mask."""

    shard: Path
    image: tuple[int, int]
    mask: tuple[int, int]


class PairFolder:
    """Pairs of one folder or several, with random access.

    Args:
        folders: what train.mine_pairs or train.true_pairs wrote.
        least_score: pairs below this confidence are left out.

    Raises:
        DataError: the manifest or a shard is missing, or no pair is left.
    """

    def __init__(self, *folders: Path, least_score: float = 0.0) -> None:
        self._places: list[_Place] = []
        nouns: list[str] = []
        hashes: list[str] = []
        for folder in folders:
            for shard in read_manifest(folder)["shards"]:
                self._index(folder / shard["name"], least_score, nouns)
                hashes.append(shard["sha256"])
        if not nouns:
            named = " and ".join(map(str, folders)) or "No folder"
            raise DataError(f"{named} holds no pair of score {least_score} or more; mine more photos.")
        self.nouns = sorted(set(nouns))
        row = {noun: i for i, noun in enumerate(self.nouns)}
        self.noun_of: NDArray[np.int64] = np.array([row[noun] for noun in nouns])
        self.digest = hashlib.sha256(json.dumps([hashes, least_score]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._places)

    def crop(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The box of a pair, (h, w, 3) uint8 with its background, and the region in it, (h, w) bool."""
        place = self._places[row]
        with place.shard.open("rb") as file:
            image, mask = (_read(file, *where) for where in (place.image, place.mask))
        return load_image(image), np.asarray(Image.open(io.BytesIO(mask))) > 0

    def _index(self, path: Path, least_score: float, nouns: list[str]) -> None:
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
                    if facts["score"] >= least_score:
                        self._places.append(_Place(path, image, places["mask.png"]))
                        nouns.append(facts["noun"])
                    places = {}
        except (tarfile.TarError, OSError, ValueError, KeyError, StopIteration) as error:
            raise DataError(f"{path} cannot be read as a shard ({error}); mine it again.") from error


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
