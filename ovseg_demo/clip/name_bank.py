"""A bank of regions whose names are known: the nearest of them vote for the name of a new region.

With v_n the share of the votes that a name gets from the K nearest known regions, nearer ones counting more,
the logit of a name grows by

    WEIGHT * log(v_n + FLOOR)

(retrieval beside CLIP, as in RetCLIP). A name gets the share UNKNOWN if no known region carries it or the
words that it ends in. With this share, names outside the bank are told from names in it as well as without a
bank. The constants are chosen on fold 0 of named_regions, which is in no bank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_demo.caching.array_cache import ArrayCache
from ovseg_demo.errors import CheckpointError
from ovseg_demo.vocabulary import fold
from ovseg_demo.weight_files import file_label

Floats = NDArray[np.float32]

BANK_PREFIX = "bank."
NAMES_KEY, TOWER_KEY = "bank_names", "bank_tower"


class NameBank:
    """Known regions in a space of fewer dimensions, and their names.

    Args:
        projection: (D, d) orthonormal columns; features are compared after it.
        regions: (N, d) unit vectors of the known regions.
        names: M names.
        pairs: (P, 2) a known region and one of its names, as rows of `regions` and `names`.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    NEAREST = 10
    """K, how many known regions vote."""
    SHARPNESS = 20.0
    """A vote counts exp(SHARPNESS * cosine)."""
    WEIGHT = 1.5
    FLOOR = 0.02
    UNKNOWN = 0.1

    def __init__(
        self, projection: Floats, regions: Floats, names: Sequence[str], pairs: NDArray[np.int64]
    ) -> None:
        fits = projection.ndim == regions.ndim == pairs.ndim == 2 and pairs.shape[1] == 2
        if not fits or projection.shape[1] != regions.shape[1] or len(regions) < 1:
            raise ValueError(f"A bank of {regions.shape} does not fit a projection of {projection.shape}.")
        if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= (len(regions), len(names))).any()):
            raise ValueError("A bank's pairs name regions or names that it does not have.")
        self.projection, self.regions = projection, regions
        self.names, self.pairs = tuple(names), pairs
        order = np.argsort(pairs[:, 0], kind="stable")
        self._names_of = pairs[order, 1]
        self._starts = np.searchsorted(pairs[order, 0], np.arange(len(regions) + 1))
        # The same regions of a photo are compared with new words again and again.
        self._nearest = ArrayCache(self._find_nearest)
        self._column = {fold(name): column for column, name in enumerate(self.names)}

    def log_votes(self, features: Floats, names: Sequence[str]) -> Floats:
        """What is added to the logits of names.

        Args:
            features: (n, D) unit vectors of regions.
            names: m names.

        Returns:
            (n, m) float32, at most WEIGHT * log(1 + FLOOR).
        """
        columns = np.array([self._find(name) for name in names], dtype=np.int64)
        shares = np.concatenate([self.votes(features), np.full((len(features), 1), self.UNKNOWN)], axis=1)
        return np.asarray(self.WEIGHT * np.log(shares[:, columns] + self.FLOOR), dtype=np.float32)

    def votes(self, features: Floats) -> Floats:
        """(n, M) the share of the nearest known regions that carry each name of the bank, 0..1."""
        nearest, weights = self._nearest(features)
        shares = np.zeros((len(features), len(self.names)), dtype=np.float32)
        first, last = self._starts[nearest], self._starts[nearest + 1]
        counts = (last - first).ravel()
        # The names of all voters one after the other: a row of `shares`, a name, a weight.
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        names = self._names_of[np.repeat(first.ravel(), counts) + within]
        rows = np.repeat(np.repeat(np.arange(len(nearest)), nearest.shape[1]), counts)
        np.add.at(shares, (rows, names), np.repeat(weights.ravel(), counts))
        return shares

    def _find_nearest(self, features: Floats) -> tuple[NDArray[np.int64], Floats]:
        """(n, K) the known regions that vote, and the weights of their votes, which add up to one."""
        points = features @ self.projection
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
        cosines = points @ self.regions.T
        count = min(self.NEAREST, len(self.regions))
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.exp(self.SHARPNESS * (near - near.max(axis=1, keepdims=True)))
        return nearest, np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)

    def _find(self, name: str) -> int:
        """The column of a name, of its singular, or of what it ends in ("red chair" is a chair).

        The column after the last if the bank has none of them.
        """
        words = fold(name).split(" ")
        ends = (" ".join(words[start:]) for start in range(len(words)))
        forms = (form for end in ends for form in (end, end.removesuffix("s")))
        return next((self._column[form] for form in forms if form in self._column), len(self.names))


def bank_entries(bank: NameBank, tower: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file of weights holds of a bank: tensors (regions as int8) and notes.

    Args:
        bank: to be written.
        tower: sha256 of the file whose tower has seen its regions.
    """
    scale = 127 / np.abs(bank.regions).max(axis=1, keepdims=True)
    tensors = {
        "projection": torch.from_numpy(bank.projection).half(),
        "regions": torch.from_numpy(np.rint(bank.regions * scale).astype(np.int8)),
        "pairs": torch.from_numpy(bank.pairs.astype(np.int32)),
    }
    notes = {NAMES_KEY: json.dumps(list(bank.names), ensure_ascii=False), TOWER_KEY: tower}
    return {f"{BANK_PREFIX}{key}": value for key, value in tensors.items()}, notes


def bank_of(
    tensors: Mapping[str, Tensor], notes: Mapping[str, str], path: Path, *, width: int, tower: str
) -> NameBank | None:
    """The bank among the entries of a file of weights; None if there is none.

    Args:
        tensors: those whose names begin with "bank.", without it.
        notes: the file's metadata.
        path: the file, for messages.
        width: D of the features that will be asked.
        tower: sha256 of the file whose tower gives them.

    Raises:
        CheckpointError: the bank is of another tower, or damaged.
    """
    if not tensors:
        return None
    if notes.get(TOWER_KEY) != tower:
        raise CheckpointError(
            f"{file_label(path)} has a bank of names made with another adapted arm; make it anew with "
            f"python -m train.name_bank."
        )
    try:
        regions = tensors["regions"].numpy().astype(np.float32)
        regions /= np.linalg.norm(regions, axis=1, keepdims=True)
        projection = tensors["projection"].float().numpy()
        if len(projection) != width or not (np.isfinite(regions).all() and np.isfinite(projection).all()):
            raise ValueError(f"its projection is of {projection.shape}, or it holds no numbers")
        names = [str(name) for name in json.loads(notes[NAMES_KEY])]
        return NameBank(projection, regions, names, tensors["pairs"].numpy().astype(np.int64))
    except (LookupError, ValueError) as error:
        raise CheckpointError(f"{file_label(path)} has a damaged bank of names: {error}.") from error
