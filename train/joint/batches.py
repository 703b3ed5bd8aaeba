"""What a step of the joint fine-tuning is computed from: regions of some photos, and captioned photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.data.feature_cache import Tensors
from train.data.pair_folder import PairFolder
from train.data.sampler import Rows
from train.data.stem_features import mirrored
from train.joint.captions import CaptionBatch, CaptionedPhotos
from train.joint.photos import PhotoMaps

_SINGLE = 0.4
"""How often names stand in the plainest template, the first of them; else in one of the others."""


@dataclass(frozen=True)
class JointBatch:
    """R regions of a few photos, each photo's together.

    Attributes:
        stems: (R, C, h, w), the stem's output for their crops.
        share: (R, 7, 7) the region's share of each patch.
        maps: per photo (1, C, h, w), the stem's output for it.
        covers: per photo (r, h, w), the share of each cell that its regions cover.
        right, ignored: (R, n) int64 rows of the noun bank, -1 = none; see `PairBatch`.
        names: (M, 384) sentence vectors of the bank in one template.
        captions: whole photos with captions, or None.
    """

    stems: Tensor
    share: Tensor
    maps: tuple[Tensor, ...]
    covers: tuple[Tensor, ...]
    right: Tensor
    ignored: Tensor
    names: Tensor
    captions: CaptionBatch | None

    def to(self, device: str) -> JointBatch:
        """On another device."""

        def move(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(move(one) for one in value)
            return value.to(device) if isinstance(value, Tensor) else value

        captions = self.captions
        if captions is not None:
            captions = replace(captions, **{name: move(value) for name, value in vars(captions).items()})
        moved = {name: move(value) for name, value in vars(self).items() if name != "captions"}
        return replace(self, captions=captions, **moved)


class PhotoSampler:
    """Draws photos and some regions of each; depends on its numbers and the step alone.

    A region of a frequent name is drawn as rarely as if there were `most_per_noun` of them. A photo counts as
    much as its regions together, at most as many as are drawn of it.

    Args:
        photo_of: (P,) photo of each pair.
        noun_of: (P,) natural name of each pair.
        photos: photos of a step.
        regions: regions of each of them, at most.
        most_per_noun: see above.
        seed: of the draws.
    """

    def __init__(
        self, photo_of: Rows, noun_of: Rows, *, photos: int, regions: int, most_per_noun: int, seed: int
    ) -> None:
        self.weight = np.minimum(1, most_per_noun / np.bincount(noun_of)[noun_of])
        order = np.argsort(photo_of, kind="stable")
        self.rows_of = np.split(order, np.flatnonzero(np.diff(photo_of[order])) + 1)
        share = np.array([min(self.weight[rows].sum(), regions) for rows in self.rows_of])
        self.photo_share = share / share.sum()
        self.photos, self.regions, self.seed = min(photos, len(share)), regions, seed

    def rows(self, step: int) -> Rows:
        """The pairs of a step, counted from 0; those of a photo together."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.rows_of), self.photos, replace=False, p=self.photo_share)
        drawn = []
        for photo in chosen:
            rows = self.rows_of[photo]
            share = self.weight[rows] / self.weight[rows].sum()
            drawn.append(rng.choice(rows, min(self.regions, len(rows)), replace=False, p=share))
        return np.concatenate(drawn)


class JointPairs:
    """Makes the batches of the joint fine-tuning from kept features.

    Args:
        folder: the pairs.
        views: of their crops, from `stem_views`.
        photos: the maps of their photos.
        names: (T, M, 384) sentence vectors of the noun bank in T templates, the plainest first.
        captions: draws captioned photos; None = without.
        seed: of everything random.
    """

    def __init__(
        self,
        folder: PairFolder,
        views: list[Tensors],
        photos: PhotoMaps,
        names: Tensor,
        captions: Callable[[np.random.Generator], CaptionBatch] | None,
        seed: int,
    ) -> None:
        self.noun_of = folder.noun_of
        self.folder, self.views, self.photos = folder, views, photos
        self.names, self.captions, self.seed = names, captions, seed

    def batch(self, rows: np.ndarray, step: int) -> JointBatch:
        """The regions of one step, from `PhotoSampler`, each in one of its views; a half mirrored."""
        rng = np.random.default_rng([self.seed, step, 1])
        view = rng.integers(len(self.views), size=len(rows))
        stems, share = (
            torch.stack([self.views[at][what][row] for at, row in zip(view, rows, strict=True)]).float()
            for what in ("stems", "share")
        )
        stems, share = mirrored(stems, share, (rng.random(len(rows)) < 0.5).tolist())
        maps, covers = [], []
        for some in np.split(rows, np.flatnonzero(np.diff(self.photos.photo_of[rows])) + 1):
            seen = self.photos.map(int(self.photos.photo_of[some[0]]))
            cover = torch.stack([self.photos.cover(int(row)) for row in some])
            flip = rng.random() < 0.5
            maps.append(seen.flip(3) if flip else seen)
            covers.append(cover.flip(2) if flip else cover)
        others = len(self.names) - 1
        template = 0 if not others or rng.random() < _SINGLE else 1 + int(rng.integers(others))
        return JointBatch(
            stems,
            share,
            tuple(maps),
            tuple(covers),
            self.folder.right[rows],
            self.folder.ignored[rows],
            self.names[template].float(),
            self.captions(rng) if self.captions else None,
        )


def caption_draws(
    photos: CaptionedPhotos, count: int, others: int
) -> Callable[[np.random.Generator], CaptionBatch]:
    """Draws of so many photos with captions of others."""
    return lambda rng: photos.batch(count, others, rng)
