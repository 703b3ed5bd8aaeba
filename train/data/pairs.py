"""Mined pairs as a training step wants them.

Large towers read crops from the shards at every step. The mini tower's stem is never trained, so what it
makes of a few views of each crop is computed once and kept; a step then starts behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.devices import fast_dtype
from ovseg_demo.naming.hidden_names import hidden_names
from ovseg_demo.regions import CropRecipe, crop_regions
from train.core import distributed
from train.core.loss import name_prior
from train.core.recipe import AdaptSettings
from train.data.augment import cut_sides
from train.data.named_regions import refuse_held_out
from train.data.pair_batch import PairBatch
from train.data.pair_folder import PairFolder
from train.data.stem_pairs import StemPairs


class CropPairs:
    """Pairs read from shards at each step, cut out by the demo's own crop function; any image tower.

    Args:
        folder: the pairs.
        recipe: the model's crop recipe.
        patch: side of its patches in pixels.
        jitter: largest share of height and width that is cut off a crop.
        seed: of the jitter.
    """

    def __init__(
        self, folder: PairFolder, recipe: CropRecipe, patch: int, *, jitter: float, seed: int
    ) -> None:
        self.folder, self.recipe, self.patch, self.jitter, self.seed = folder, recipe, patch, jitter, seed
        self.noun_of = folder.noun_of

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """Read, jitter and cut the pairs of one step; the result depends on seed, step and row alone."""
        crops, masks = [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, int(row)])
            image, mask = cut_sides(*self.folder.crop(int(row)), self.jitter, rng)
            region = crop_regions(image, mask[None], self.recipe)
            crops.append(region.crops)
            masks.append(region.masks)
        kept = token_mask(torch.cat(masks), self.patch)
        return PairBatch(torch.cat(crops), kept, self.folder.right[rows], self.folder.ignored[rows])


def noun_text(clip: MaskAdaptedCLIP, nouns: Sequence[str]) -> Tensor:
    """(M, D) the noun bank in the plainest template, which is also what crops are captioned with."""
    return functional.normalize(clip.encode_text(nouns, "single"), dim=-1)


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs with their noun bank.

    Attributes:
        source: makes batches as the model's image tower takes them.
        text: (M, D) unit vectors of the bank.
        prior: (M,) what the loss adds to the logits over the bank.
        digest: of the pairs.
    """

    source: CropPairs | StemPairs
    text: Tensor
    prior: Tensor
    digest: str


def open_pairs(settings: AdaptSettings, clip: MaskAdaptedCLIP) -> TrainingPairs:
    """Read the pairs of a run.

    Raises:
        DataError: a folder has no manifest, a shard is damaged, no pair is left, or a photo is of the fold
            that is never trained on.
    """
    with distributed.main_process_first():
        folder = PairFolder(*settings.pairs, least_score=settings.least_score)
    refuse_held_out((place.path for place in folder.photos), settings.data)
    # Distillation covers more names than the pairs have, so that those are not forgotten.
    more = [name for name in hidden_names() if name not in folder.nouns] if settings.distil else []
    bank = [*folder.nouns, *more]
    text = noun_text(clip, bank)
    prior = name_prior(folder.right, len(bank), settings.prior)
    tower, jitter = clip.image_tower, settings.jitter or 0.0
    if not hasattr(tower, "from_stem"):
        crops = CropPairs(folder, clip.crop_recipe, tower.patch, jitter=jitter, seed=settings.seed)
        return TrainingPairs(crops, text, prior, folder.digest)
    vanilla = load_clip(settings.model, weights="vanilla").compute_in(fast_dtype(torch.device("cpu")))
    parts = [PairFolder(path, least_score=settings.least_score) for path in settings.pairs]
    work = settings.keep or settings.out
    stems = StemPairs(
        folder,
        parts,
        vanilla,
        text,
        work,
        distil=bool(settings.distil),
        views=settings.views,
        jitter=jitter,
        unlabeled_per_pair=(settings.pseudo_labels or 0.0) if settings.distil else 0.0,
        bank=bank,
        seed=settings.seed,
    )
    digest = folder.digest + folder.unlabeled_digest * bool(stems.unlabeled_per_pair)
    return TrainingPairs(stems, text, prior, digest)
