"""Mask prompt tuning on corrected regions (the paper's section 3.3, on a few dozen regions).

The trunk and every other weight are frozen, so what they make of the crops is computed once; a step of
training is the transformer alone. Beside the corrections stand other places of the same photos, whose names
must stay what they are: without them the prompts learn to answer with the corrected names everywhere.

Whether it helps is asked in cross-validation: the photos are parted into folds, and each region is named by
prompts that have not seen its photo. Right and wrong are paired, region by region, before and after, and the
sign test says how likely so many more hits are by chance. Only then is taught with all of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.clip.towers import TowerWithStem, tower_with_prompts
from ovseg_demo.errors import CorrectionError
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.teaching.check import Check, undisputed
from ovseg_demo.teaching.crops import FOLDS, Lessons, TeachStep
from ovseg_demo.teaching.lessons import LEAST_REGIONS
from ovseg_demo.teaching.prompts_file import TaughtPrompts

STEPS = 30
"""Steps of one training over all its regions."""
RATE = 0.01
"""Of AdamW; it falls to 0 along a cosine."""
KEEP = 1.0
"""Weight of the divergence from what was said before of the other places of the photos."""
PLACES_AT_ONCE = 24
"""How many of those places a step looks at."""


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
