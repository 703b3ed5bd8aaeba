"""Mask prompt tuning on corrected regions (the paper's section 3.3, on a few dozen regions).

The trunk and every other weight are frozen, so what they make of the crops is computed once; a step of
training is the transformer alone. A part of the corrections is kept out and never trained on: if the prompts
do not name more of it right, they are refused.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.clip.towers import TowerWithStem, tower_with_prompts
from ovseg_demo.corrections.applying import at_size
from ovseg_demo.errors import CorrectionError, SettingsError
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.naming.hidden_names import competing_names, hidden_names
from ovseg_demo.regions import crop_regions
from ovseg_demo.teaching.lessons import LEAST_REGIONS, Lesson
from ovseg_demo.teaching.prompts_file import TaughtPrompts
from ovseg_demo.vocabulary import fold

STEPS = 60
"""Steps of training over all regions that are not kept out."""
RATE = 0.01
"""Of AdamW; it falls to 0 along a cosine."""
KEPT_OUT = 0.3
"""Share of the corrections that is kept out."""
ANCHOR = 2.0
"""Weight of the divergence from what the prompts said before about all other names."""


@dataclass(frozen=True)
class TeachStep:
    """How far teaching is."""

    fraction: float
    """0..1."""
    message: str


@dataclass(frozen=True, eq=False)
class Lessons:
    """Corrected regions as the transformer sees them.

    Attributes:
        seen: (N, C, g, g) the trunk's patches of the crops, before prompts.
        token_masks: (N, g * g) of 0 and 1.
        rows: (N,) the row of each region's name in `text`.
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

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        lessons: Sequence[Lesson],
        *,
        max_side_px: int = 1024,
        templates: str = "vild",
    ) -> Lessons:
        """Cut the corrected regions out and run what is frozen.

        Args:
            classifier: the adapted arm.
            lessons: photos with corrections.
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
            if not lesson.named:
                continue
            image = resize_to_side(lesson.image, max_side_px)
            stack = np.stack([at_size(region.mask, image.shape[:2]) for region in lesson.named])
            regions = crop_regions(image, stack, clip.crop_recipe, device=clip.device)
            stem = clip.compute_stem(regions.crops, regions.masks)
            with torch.no_grad():
                seen.append(cast(TowerWithStem, clip.image_tower).trunk_patches(stem.features).float())
            masks.append(stem.token_masks)
            for region in lesson.named:
                names.setdefault(fold(str(region.name)), str(region.name))
                rows.append(list(names).index(fold(str(region.name))))
                photos.append(number)
        if not rows:
            raise CorrectionError("No corrected region has a name; name some and teach again.")
        own = tuple(names.values())
        typed, common = classifier.text(own, templates), classifier.text(hidden_names(), templates)
        apart = competing_names(own, typed, hidden_names(), common, classifier.MOST_ALIKE)
        text = torch.from_numpy(np.concatenate([typed, common[apart]]))
        return cls(torch.cat(seen), torch.cat(masks), torch.tensor(rows), text, own, torch.tensor(photos))

    def kept_out(self, seed: int = 0) -> Tensor:
        """(N,) bool: whole photos if there are at least four, else regions; about a third of each name."""
        draw = np.random.default_rng(seed)
        kept = np.zeros(len(self), dtype=np.bool_)
        photos = np.unique(self.photos.numpy())
        if len(photos) >= 4:
            some = draw.permutation(photos)[: max(1, round(KEPT_OUT * len(photos)))]
            kept = np.isin(self.photos.numpy(), some)
        else:
            for row in np.unique(self.rows.numpy()):
                own = draw.permutation(np.flatnonzero(self.rows.numpy() == row))
                kept[own[: round(KEPT_OUT * len(own))]] = True
        if not kept.any() or kept.all():
            raise CorrectionError("The corrections cannot be parted to check what is learned; correct more.")
        return torch.from_numpy(kept)


def teach(
    classifier: Classifier, lessons: Lessons, *, seed: int = 0, steps: int = STEPS
) -> Generator[TeachStep, None, TaughtPrompts]:
    """Tune the mask prompts of an arm on corrections; yields progress, and closing it stops the work.

    The arm itself stays as it is.

    Args:
        classifier: the adapted arm.
        lessons: at least `LEAST_REGIONS` corrected regions.
        seed: draws what is kept out.
        steps: of training.

    Raises:
        CorrectionError: there are too few regions, or what is learned does not help on those kept out.
    """
    if len(lessons) < LEAST_REGIONS:
        raise CorrectionError(
            f"There are {len(lessons)} corrected regions with a name and teaching needs {LEAST_REGIONS}; "
            "correct more."
        )
    clip = classifier.clip
    kept = lessons.kept_out(seed)
    before: MaskPrompts = cast(Any, clip.image_tower).prompts
    start = before.mask_embedding.detach().float()
    learned = start.clone().requires_grad_(True)
    with torch.no_grad():
        said_before = logits(clip, lessons, start)
    right = _right(said_before, lessons)
    optimizer = torch.optim.AdamW([learned], lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    others = torch.ones(said_before.shape[1], dtype=torch.bool)
    others[: len(lessons.names)] = False
    weight = _class_weights(lessons.rows[~kept])
    for step in range(steps):
        yield TeachStep(0.05 + 0.9 * step / steps, f"Learning from {int((~kept).sum())} regions")
        now = logits(clip, lessons, learned, ~kept)
        loss = (weight * functional.cross_entropy(now, lessons.rows[~kept], reduction="none")).sum()
        if others.any():
            was = said_before[~kept][:, others].log_softmax(1)
            is_now = now[:, others].log_softmax(1)
            loss = loss + ANCHOR * functional.kl_div(is_now, was, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        right_now = _right(logits(clip, lessons, learned.detach()), lessons)
    count = int(kept.sum())
    hits, hits_now = int(right[kept].sum()), int(right_now[kept].sum())
    told = f"{hits} of {count} regions that were kept out are named right before and {hits_now} after"
    if hits_now <= hits:
        raise CorrectionError(f"Teaching does not help here: {told}; correct more regions, or other ones.")
    yield TeachStep(1.0, f"{told[0].upper()}{told[1:]}")
    facts = {
        "names": list(lessons.names),
        "regions": len(lessons),
        "kept_out": count,
        "right_before": hits,
        "right_after": hits_now,
    }
    weights = clip.weights_id or clip.tower_id
    return TaughtPrompts(learned.detach().cpu().numpy(), clip.name, weights, facts)


def logits(clip: MaskAdaptedCLIP, lessons: Lessons, prompts: Tensor, some: Tensor | None = None) -> Tensor:
    """(n, M) logits of regions under some prompts; all of them, or those of a (N,) bool mask."""
    tower = cast(TowerWithStem, tower_with_prompts(clip.image_tower, _Holder(prompts)))
    seen = lessons.seen if some is None else lessons.seen[some]
    masks = lessons.token_masks if some is None else lessons.token_masks[some]
    features = functional.normalize(tower.from_trunk(seen.to(clip.dtype), masks).float(), dim=-1)
    return float(clip.score_scale) * features @ lessons.text.T


class _Holder(MaskPrompts):
    """Mask prompts that are a plain tensor, so that gradients reach it."""

    def __init__(self, prompts: Tensor) -> None:
        super().__init__(0, 1, 1)
        del self.mask_embedding
        self.mask_embedding = prompts  # type: ignore[assignment]


def _right(said: Tensor, lessons: Lessons) -> Tensor:
    return said.argmax(dim=1) == lessons.rows


def _class_weights(rows: Tensor) -> Tensor:
    """(n,) weights that add up to 1, half way between every region and every name counting alike."""
    counts = torch.bincount(rows)[rows].float()
    weight = counts.rsqrt()
    return weight / weight.sum()
