"""The photos of pairs as the frozen stem sees them, and where each pair's region lies in its photo."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.context import ContextConfig, photo_input, photo_size, region_cover
from ovseg_demo.imaging import resize_to_side
from train.data.feature_cache import Tensors, cached_pieces
from train.data.pair_folder import PairFolder
from train.data.sources import DataError, photo_at

_STRIDE = 16
_FULL = 255
"""Covers are kept as whole numbers up to this."""


class PhotoMaps:
    """Kept maps of the photos of some pairs, and how much of each cell each pair's region covers.

    Attributes:
        photo_of: (P,) int64, photo of each pair.

    Args:
        folder: the pairs, which must say where their photos lie.
        data: the folder below which they lie.
        clip: a model whose stem all towers share.
        config: the size at which photos are seen.
        work: folder that the maps are kept in.

    Raises:
        DataError: a pair does not say where its photo lies, or the photo is missing or of another shape.
    """

    def __init__(
        self, folder: PairFolder, data: Path, clip: MaskAdaptedCLIP, config: ContextConfig, work: Path
    ) -> None:
        first: dict[str, int] = {}
        for row, place in enumerate(folder.photos):
            if not place.path:
                raise DataError(
                    "A pair does not say where its photo lies, and the context head needs the whole photo: "
                    "write the pairs again from the data folders (train.named_pairs, train.true_pairs, "
                    "train.mine_pairs)."
                )
            first.setdefault(place.path, row)
        number = {path: i for i, path in enumerate(first)}
        self.photo_of = np.array([number[place.path] for place in folder.photos])
        sizes = [folder.photos[row].size for row in first.values()]
        self._grids = [(h // _STRIDE, w // _STRIDE) for h, w in (photo_size(*size, config) for size in sizes)]
        about = hashlib.sha256(json.dumps([list(first), sizes]).encode()).hexdigest()
        self._maps = _maps(list(first), sizes, data, clip, config, work, f"{about}/{config}")
        self._covers = _covers(folder, self.photo_of, self._grids, work, f"{about}/{folder.digest}/{config}")

    def __len__(self) -> int:
        return len(self._grids)

    def map(self, photo: int) -> Tensor:
        """(1, C, h, w) float32, the stem's output for a photo."""
        height, width = self._grids[photo]
        return self._maps[photo].reshape(1, -1, height, width).float()

    def cover(self, row: int) -> Tensor:
        """(h, w) float32 in 0..1, of each cell of its photo's map the share that a pair's region covers."""
        return self._covers[row].reshape(self._grids[self.photo_of[row]]).float() / _FULL


def _maps(
    paths: list[str],
    sizes: list[tuple[int, int]],
    data: Path,
    clip: MaskAdaptedCLIP,
    config: ContextConfig,
    work: Path,
    key: str,
) -> list[Tensor]:
    """Per photo (C, h * w) float16."""
    tower: Any = clip.image_tower

    def compute(rows: range) -> Tensors:
        (row,) = rows
        image = resize_to_side(photo_at(data, paths[row]).read(), max(sizes[row]))
        if image.shape[:2] != sizes[row]:
            raise DataError(
                f"{data / paths[row]} is {image.shape[1]} x {image.shape[0]} and its pairs were cut out of "
                f"{sizes[row][1]} x {sizes[row][0]}; restore the photo, or write the pairs again."
            )
        seen = tower.stem(photo_input(image, clip.crop_recipe, config).to(clip.dtype))
        return {"cells": seen[0].flatten(1).T.half()}

    # The maps have different sizes, so that pieces hold their cells one after the other.
    grids = [(h // _STRIDE) * (w // _STRIDE) for h, w in (photo_size(*size, config) for size in sizes)]
    pieces = cached_pieces(work, "photos", f"{key}/{clip.stem_id}", len(paths), compute, at_once=1)
    return _split([piece["cells"] for piece in pieces], grids, lambda cells: cells.T)


def _covers(
    folder: PairFolder, photo_of: np.ndarray, grids: list[tuple[int, int]], work: Path, key: str
) -> list[Tensor]:
    """Per pair (h * w,) uint8."""

    def compute(rows: range) -> Tensors:
        (row,) = rows
        place, (height, width) = folder.photos[row], grids[photo_of[row]]
        mask = torch.zeros(1, *place.size, dtype=torch.bool)
        left, top, right, bottom = place.box
        mask[0, top:bottom, left:right] = torch.from_numpy(folder.mask(row))
        cover = region_cover(mask, height * _STRIDE, width * _STRIDE)
        return {"cells": (cover.flatten() * _FULL).ceil().to(torch.uint8)}

    counts = [grids[photo][0] * grids[photo][1] for photo in photo_of]
    pieces = cached_pieces(work, "covers", key, len(folder), compute, at_once=1)
    return _split([piece["cells"] for piece in pieces], counts, lambda cells: cells)


def _split(pieces: list[Tensor], counts: list[int], change: Any) -> list[Tensor]:
    """Rows of all pieces, cut into parts of these numbers of rows."""
    parts: list[Tensor] = []
    for piece in pieces:
        start = 0
        while start < len(piece):
            count = counts[len(parts)]
            parts.append(change(piece[start : start + count]))
            start += count
    return parts
