"""Mask prompt tuning on corrected regions (the paper's section 3.3, on a few dozen regions).

The trunk and every other weight are frozen, so what they make of the crops is computed once; a step of
training is the transformer alone. Beside the corrections stand other places of the same photos, whose names
must stay what they are: without them the prompts learn to answer with the corrected names everywhere.

Whether it helps is asked in cross-validation: the photos are parted into folds, and each region is named by
prompts that have not seen its photo. Right and wrong are paired, region by region, before and after, and the
sign test says how likely so many more hits are by chance. Only then is taught with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
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
from ovseg_demo.progress import run_to_end
from ovseg_demo.regions import crop_regions
from ovseg_demo.teaching.lessons import LEAST_REGIONS, Lesson
from ovseg_demo.teaching.prompts_file import TaughtPrompts
from ovseg_demo.vocabulary import fold

STEPS = 30
"""Steps of one training over all its regions."""
RATE = 0.01
"""Of AdamW; it falls to 0 along a cosine."""
FOLDS = 4
"""Parts that the corrections are checked in; each is kept out once."""
KEEP = 1.0
"""Weight of the divergence from what was said before of the other places of the photos."""
PLACES_AT_ONCE = 24
"""How many of those places a step looks at."""
PLACES = 96
"""Most such places of all photos together."""
CHANCE = 0.1
"""Prompts are refused if so many more hits come about by chance with a higher probability."""
MOST_MOVED = 0.1
"""Prompts are refused if more of the other places change to a corrected name."""


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


def teach(
    classifier: Classifier, lessons: Lessons, *, seed: int = 0, steps: int = STEPS
) -> Generator[TeachStep, None, TaughtPrompts]:
    """Tune the mask prompts of an arm on corrections; yields progress, and closing it stops the work.

    The arm itself stays as it is.

    Args:
        classifier: the adapted arm.
        lessons: at least `LEAST_REGIONS` corrected regions.
        seed: draws the folds.
        steps: of each training.

    Raises:
        CorrectionError: there are too few regions, or what is learned does not help on those kept out.
    """
    if lessons.regions < LEAST_REGIONS:
        raise CorrectionError(
            f"There are {lessons.regions} corrected regions with a name and teaching needs {LEAST_REGIONS}; "
            "correct more."
        )
    clip, named = classifier.clip, lessons.named
    before: MaskPrompts = cast(Any, clip.image_tower).prompts
    start = before.mask_embedding.detach().float()
    with torch.no_grad():
        said_before = logits(clip, lessons, start)
    folds = lessons.folds(seed)
    said_after = said_before.clone()
    parts = [part for part in range(FOLDS) if (named & (folds == part)).any()]
    for number, part in enumerate(parts):
        kept = folds == part
        if not (named & ~kept).any():
            raise CorrectionError(
                "The corrections cannot be parted to check what is learned; correct more of them."
            )
        prompts = yield from _trained(
            clip, lessons, ~kept, said_before, steps, (number, len(parts)), "Checking what is learned"
        )
        with torch.no_grad():
            said_after[kept] = logits(clip, lessons, prompts, kept)
    check = Check.of(said_before, said_after, lessons)
    if not check.helps:
        raise CorrectionError(
            f"Teaching does not help here: {check.told}; correct more regions, or other ones."
        )
    learned = yield from _trained(
        clip,
        lessons,
        torch.ones_like(named),
        said_before,
        steps,
        (len(parts), len(parts)),
        "Learning from all",
    )
    facts = {"names": list(lessons.names), "regions": lessons.regions, **check.facts}
    taught = TaughtPrompts(learned.cpu().numpy(), clip.name, clip.weights_id or clip.tower_id, facts)
    yield TeachStep(1.0, taught.summary)
    return taught


@dataclass(frozen=True)
class Check:
    """What prompts that had not seen a region make of it, over all regions.

    Attributes:
        regions: how many were kept out, each once.
        right_before: of them, named right by the prompts of the model.
        gained: named right only afterwards.
        lost: named right only before.
        places: other places of the photos that should stay what they are.
        moved: share of them that change to a corrected name.
    """

    regions: int
    right_before: int
    gained: int
    lost: int
    places: int
    moved: float

    @classmethod
    def of(cls, before: Tensor, after: Tensor, lessons: Lessons) -> Check:
        """From (N, M) logits before and after."""
        named, kept_as_is = lessons.named, undisputed(before, lessons)
        was, now = before.argmax(dim=1), after.argmax(dim=1)
        right, right_now = (said[named] == lessons.rows[named] for said in (was, now))
        moved = ((was != now) & (now < len(lessons.names)))[kept_as_is]
        return cls(
            int(named.sum()),
            int(right.sum()),
            int((right_now & ~right).sum()),
            int((right & ~right_now).sum()),
            len(moved),
            float(moved.float().mean()) if len(moved) else 0.0,
        )

    @property
    def right_after(self) -> int:
        """Of the regions, named right afterwards."""
        return self.right_before + self.gained - self.lost

    @property
    def chance(self) -> float:
        """Probability of at least so many hits among the changes if a hit were as likely as a miss."""
        changes = self.gained + self.lost
        return sum(math.comb(changes, hits) for hits in range(self.gained, changes + 1)) * 0.5**changes

    @property
    def helps(self) -> bool:
        """Whether the prompts are worth having."""
        return self.gained > self.lost and self.chance <= CHANCE and self.moved <= MOST_MOVED

    @property
    def facts(self) -> dict[str, Any]:
        """For the file and for people."""
        return {
            "kept_out": self.regions,
            "right_before": self.right_before,
            "right_after": self.right_after,
            "gained": self.gained,
            "lost": self.lost,
            "chance": round(self.chance, 4),
            "moved": round(self.moved, 4),
        }

    @property
    def told(self) -> str:
        """For people, as a part of a sentence."""
        why = ""
        if self.gained > self.lost and self.chance > CHANCE:
            why = f", which chance alone does in {100 * self.chance:.0f} of 100 cases"
        elif self.moved > MOST_MOVED:
            why = f", and {100 * self.moved:.0f} % of other places are taken for one of the names"
        return (
            f"of {self.regions} regions, each named by prompts that had not seen it, {self.right_before} are "
            f"right before and {self.right_after} after{why}"
        )


def undisputed(before: Tensor, lessons: Lessons) -> Tensor:
    """(N,) bool, the other places that should stay what they are.

    One that bears a name which was corrected elsewhere may be mistaken in the same way.
    """
    was, named = before.argmax(dim=1), lessons.named
    disputed = was[named & (was != lessons.rows)]
    return ~named & ~torch.isin(was, disputed)


def _trained(
    clip: MaskAdaptedCLIP,
    lessons: Lessons,
    used: Tensor,
    said_before: Tensor,
    steps: int,
    turn: tuple[int, int],
    message: str,
) -> Generator[TeachStep, None, Tensor]:
    """Prompts that are tuned on some regions, (N,) bool; `turn` counts the trainings from 0."""
    before: MaskPrompts = cast(Any, clip.image_tower).prompts
    learned = before.mask_embedding.detach().float().clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([learned], lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    regions = used & lessons.named
    places = torch.nonzero(used & undisputed(said_before, lessons))[:, 0].cpu()
    rows, was = lessons.rows[regions], said_before.log_softmax(dim=1)
    weight = _class_weights(rows)
    draw = torch.Generator().manual_seed(turn[0])
    for step in range(steps):
        share = (turn[0] + step / steps) / (turn[1] + 1)
        yield TeachStep(0.12 + 0.88 * share, f"{message}: part {turn[0] + 1} of {turn[1] + 1}")
        some = places[torch.randperm(len(places), generator=draw)[:PLACES_AT_ONCE]].to(rows.device)
        now = logits(clip, lessons, learned, torch.cat([torch.nonzero(regions)[:, 0], some]))
        loss = (weight * functional.cross_entropy(now[: len(rows)], rows, reduction="none")).sum()
        if len(some):
            is_now = now[len(rows) :].log_softmax(dim=1)
            loss = loss + KEEP * functional.kl_div(is_now, was[some], log_target=True, reduction="batchmean")
        # The weights of the shared model get no gradients.
        (learned.grad,) = torch.autograd.grad(loss, [learned])
        optimizer.step()
        schedule.step()
    return learned.detach()


def logits(clip: MaskAdaptedCLIP, lessons: Lessons, prompts: Tensor, some: Tensor | None = None) -> Tensor:
    """(n, M) logits of regions under some prompts: all, or those of a (N,) bool mask or of (n,) numbers.

    Other requests of the same arm see nothing of the prompts.
    """
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


def _class_weights(rows: Tensor) -> Tensor:
    """(n,) weights that add up to 1, half way between every region and every name counting alike."""
    counts = torch.bincount(rows)[rows].float()
    weight = counts.rsqrt()
    return weight / weight.sum()
