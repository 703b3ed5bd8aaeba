"""Corrected regions, and other places of their photos, as the transformer sees them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.towers import TowerWithStem
from ovseg_demo.corrections.applying import at_size
from ovseg_demo.errors import CorrectionError, SettingsError
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.naming.hidden_names import competing_names, hidden_names
from ovseg_demo.progress import run_to_end
from ovseg_demo.regions import crop_regions
from ovseg_demo.teaching.lessons import Lesson
from ovseg_demo.vocabulary import fold

FOLDS = 4
"""Parts that the corrections are checked in; each is kept out once."""
PLACES = 96
"""Most such places of all photos together."""


@dataclass(frozen=True)
class TeachStep:
    """How far teaching is."""

    fraction: float
    """0..1."""
    message: str


@dataclass(frozen=True, eq=False)
class Lessons:
    """Corrected regions, and other places of their photos, as the transformer sees them.

    Attributes:
        seen: (N, C, g, g) the trunk's patches of the crops, before prompts.
        token_masks: (N, g * g) of 0 and 1.
        rows: (N,) the row of each region's name in `text`; -1 for another place.
        text: (M, D) unit vectors: the corrected names, then the common names that differ from them.
        names: the corrected names, in the order of `text`.
        photos: (N,) number of the photo.
    """

    seen: Tensor
    token_masks: Tensor
    rows: Tensor
    text: Tensor
    names: tuple[str, ...]
    photos: Tensor

    @property
    def named(self) -> Tensor:
        """(N,) bool, the corrected regions."""
        return self.rows >= 0

    @property
    def regions(self) -> int:
        """How many corrected regions there are."""
        return int(self.named.sum())

    @classmethod
    def of(cls, classifier: Classifier, lessons: Sequence[Lesson], **options: Any) -> Lessons:
        """`stream` to its end."""
        return run_to_end(cls.stream(classifier, lessons, len(lessons), **options))

    @classmethod
    def stream(
        cls,
        classifier: Classifier,
        lessons: Iterable[Lesson],
        count: int,
        *,
        max_side_px: int = 1024,
        templates: str = "vild",
    ) -> Generator[TeachStep, None, Lessons]:
        """Cut the corrected regions out and run what is frozen; yields progress.

        Args:
            classifier: the adapted arm.
            lessons: photos with corrections, one in memory at a time.
            count: how many there are.
            max_side_px: longer side at which crops are cut, as for `Settings.max_side_px`.
            templates: sentences around a name.

        Raises:
            SettingsError: the model has no tower whose trunk is frozen, or no mask prompts.
            CorrectionError: there is no named region.
        """
        clip = classifier.clip
        if clip.stem_id is None or not clip.has_prompts:
            raise SettingsError(f"{clip.name} cannot be taught: only the adapted arm of ovseg-mini can.")
        names: dict[str, str] = {}
        seen, masks, rows, photos = [], [], [], []
        for number, lesson in enumerate(lessons):
            yield TeachStep(0.1 * number / count, f"Reading photo {number + 1} of {count}")
            if not lesson.named:
                continue
            image = resize_to_side(lesson.image, max_side_px)
            corrected = np.stack([at_size(region.mask, image.shape[:2]) for region in lesson.named])
            others = other_places(corrected, -(-PLACES // count))
            stack = np.concatenate([corrected, others])
            of_photo = frozen_part(clip, image, stack)
            seen.append(of_photo[0])
            masks.append(of_photo[1])
            for region in lesson.named:
                names.setdefault(fold(str(region.name)), str(region.name))
                rows.append(list(names).index(fold(str(region.name))))
            rows += [-1] * len(others)
            photos += [number] * len(stack)
        if not names:
            raise CorrectionError("No corrected region has a name; name some and teach again.")
        yield TeachStep(0.1, "Reading the names")
        own = tuple(names.values())
        text, _ = compared_text(classifier, own, templates)
        return cls(
            torch.cat(seen),
            torch.cat(masks),
            torch.tensor(rows, device=clip.device),
            text,
            own,
            torch.tensor(photos, device=clip.device),
        )

    def folds(self, seed: int = 0) -> Tensor:
        """(N,) fold of each region: whole photos where there are at least `FOLDS`, else regions by name."""
        draw = np.random.default_rng(seed)
        photos, rows = self.photos.cpu().numpy(), self.rows.cpu().numpy()
        folds = np.zeros(len(rows), dtype=np.int64)
        own = draw.permutation(np.unique(photos[rows >= 0]))
        if len(own) >= FOLDS:
            # The largest first, each into the fold that has least.
            sizes = np.zeros(FOLDS)
            for photo in sorted(own, key=lambda one: -int(np.sum(rows[photos == one] >= 0))):
                folds[photos == photo] = sizes.argmin()
                sizes[sizes.argmin()] += np.sum(rows[photos == photo] >= 0)
        else:
            order = np.concatenate([draw.permutation(np.flatnonzero(rows == row)) for row in np.unique(rows)])
            folds[order] = np.arange(len(order)) % FOLDS
        return torch.from_numpy(folds).to(self.rows.device)


@torch.no_grad()
def frozen_part(
    clip: MaskAdaptedCLIP, image: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """`seen` and `token_masks` of (K, h, w) masks of an image, as in `Lessons`."""
    tower = cast(TowerWithStem, clip.image_tower)
    seen, kept = [], []
    for start in range(0, len(masks), 8):
        regions = crop_regions(image, masks[start : start + 8], clip.crop_recipe, device=clip.device)
        stem = clip.compute_stem(regions.crops, regions.masks)
        seen.append(tower.trunk_patches(stem.features).float())
        kept.append(stem.token_masks)
    return torch.cat(seen), torch.cat(kept)


def compared_text(
    classifier: Classifier, names: Sequence[str], templates: str
) -> tuple[Tensor, tuple[str, ...]]:
    """(M, D) text features of names and of the common names that compete with them, and all M names."""
    typed, common = classifier.text(names, templates), classifier.text(hidden_names(), templates)
    apart = competing_names(names, typed, hidden_names(), common, classifier.MOST_ALIKE)
    text = torch.from_numpy(np.concatenate([typed, common[apart]])).to(classifier.clip.device)
    return text, (*names, *compress(hidden_names(), apart))


def other_places(corrected: NDArray[np.bool_], count: int, seed: int = 0) -> NDArray[np.bool_]:
    """Ellipses that hardly meet the corrected regions, where a photo has room for them.

    Args:
        corrected: (K, h, w) bool.
        count: most of them.
        seed: of the draws.

    Returns:
        (n, h, w) bool, n in 0..`count`.
    """
    draw = np.random.default_rng(seed)
    height, width = corrected.shape[1:]
    taken = corrected.any(axis=0)
    ys, xs = np.ogrid[:height, :width]
    found: list[NDArray[np.bool_]] = []
    for _ in range(8 * count):
        if len(found) == count:
            break
        y, x = draw.uniform(0, height), draw.uniform(0, width)
        high, wide = draw.uniform(0.06, 0.25, 2) * (height, width)
        mask = ((ys - y) / high) ** 2 + ((xs - x) / wide) ** 2 < 1
        area = np.count_nonzero(mask)
        if area >= 64 and np.count_nonzero(mask & taken) < 0.2 * area:
            found.append(mask)
    return np.stack(found) if found else np.zeros((0, height, width), dtype=np.bool_)
