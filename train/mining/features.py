"""Second step: CLIP features of every usable proposal."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.text import Templates
from ovseg_demo.errors import ImageError
from ovseg_demo.regions import crop_regions
from train.core.files import write_bytes
from train.data.sources import Photo
from train.mining.photos import photo_id
from train.mining.proposals import PhotoProposals, read_photo

Features = NDArray[np.float32]


@dataclass(frozen=True)
class RegionFilter:
    """Which proposals are embedded."""

    least_area: float = 0.004
    """Fraction of the photo; the crop of a smaller region has a few pixels only."""
    most_area: float = 0.95
    """Fraction of the photo; a larger region is nearly the whole photo."""
    least_side_px: int = 12
    """Of the box, in pixels."""

    def usable(self, masks: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Indices of the usable ones among (K, H, W) masks."""
        if not len(masks):
            return np.zeros(0, dtype=np.intp)
        area = masks.reshape(len(masks), -1).mean(axis=1)
        rows, columns = np.asarray(masks.any(axis=2)), np.asarray(masks.any(axis=1))
        height, width = _extent(rows), _extent(columns)
        keep = (area >= self.least_area) & (area <= self.most_area)
        return np.flatnonzero(keep & (np.minimum(height, width) >= self.least_side_px))


def _extent(occupied: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Length from the first to the last true value of each row."""
    last = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return np.where(occupied.any(axis=1), last - occupied.argmax(axis=1), 0)


@dataclass(frozen=True)
class PhotoRegions:
    """The usable regions of one photo.

    Attributes:
        photo: its id.
        index: (R,) which of the photo's proposals they are.
        features: (R, D) float32 unit vectors.
    """

    photo: str
    index: NDArray[np.int64]
    features: Features


def embed_photo(
    photo: Photo, proposals: PhotoProposals, clip: MaskAdaptedCLIP, chosen: RegionFilter, max_side_px: int
) -> PhotoRegions:
    """Crop the usable proposals of a photo and embed them, without mask prompts."""
    index = chosen.usable(proposals.masks)
    nothing = PhotoRegions(
        proposals.photo, index[:0].astype(np.int64), np.zeros((0, clip.embed_dim), np.float32)
    )
    if proposals.error or not len(index):
        return nothing
    try:
        image = read_photo(photo, max_side_px)
    except ImageError:  # it could be read when the proposals were made
        return nothing
    regions = crop_regions(image, proposals.masks[index], clip.crop_recipe, device=clip.device)
    features = clip.encode_regions(regions.crops, regions.masks, use_prompts=False)
    return PhotoRegions(proposals.photo, index.astype(np.int64), features.cpu().numpy())


def embed_chunk(
    photos: Sequence[Photo],
    proposals: Sequence[PhotoProposals],
    path: Path,
    clip: MaskAdaptedCLIP,
    chosen: RegionFilter,
    max_side_px: int,
) -> dict[str, int]:
    """Embed the regions of some photos and write them to `path`; returns counts for the log."""
    found = [
        embed_photo(photo, masks, clip, chosen, max_side_px)
        for photo, masks in zip(photos, proposals, strict=True)
    ]
    header = json.dumps([photo_id(photo) for photo in photos]).encode()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        header=np.frombuffer(header, np.uint8),
        count=np.array([len(one.index) for one in found], np.int64),
        index=np.concatenate([one.index for one in found]),
        features=np.concatenate([one.features for one in found]).astype(np.float16),
    )
    write_bytes(path, buffer.getvalue())
    return {"photos": len(photos), "regions": sum(len(one.index) for one in found)}


def read_features(path: Path) -> list[PhotoRegions]:
    """Read what `embed_chunk` wrote, photo by photo in the same order."""
    with np.load(path) as stored:
        names = json.loads(stored["header"].tobytes())
        ends = np.cumsum(stored["count"])[:-1]
        indices = np.split(stored["index"], ends)
        features = np.split(stored["features"].astype(np.float32), ends)
    return [
        PhotoRegions(name, index, rows) for name, index, rows in zip(names, indices, features, strict=True)
    ]


def noun_features(
    clip: MaskAdaptedCLIP, nouns: Sequence[str], templates: Templates, folder: Path
) -> Features:
    """(n, D) float32 unit vectors of nouns, computed once and kept in `folder`."""
    key = hashlib.sha256("\n".join([templates, *nouns]).encode()).hexdigest()[:16]
    path = folder / f"nouns_{key}.npy"
    if not path.is_file():
        buffer = io.BytesIO()
        np.save(buffer, clip.encode_text(nouns, templates).float().cpu().numpy())
        write_bytes(path, buffer.getvalue())
    return np.asarray(np.load(path), dtype=np.float32)
