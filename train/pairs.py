"""Mined pairs as a training step wants them.

Large towers read crops from the shards at every step. The mini tower's stem is never trained, so what it
makes of each crop is computed once and kept; a step then starts behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.devices import fast_dtype
from ovseg_demo.hidden_names import hidden_names
from ovseg_demo.regions import CropRecipe, crop_regions
from train import distributed
from train.pair_batch import PairBatch
from train.pair_folder import PairFolder
from train.recipe import AdaptSettings

CROPS_AT_ONCE = 32


class CropPairs:
    """Pairs read from shards at each step, cut out by the demo's own crop function; any image tower.

    Args:
        folder: the pairs.
        recipe: the model's crop recipe.
        patch: side of its patches in pixels.
        jitter: largest share cut off a crop's sides.
        seed: of the jitter.
    """

    def __init__(
        self, folder: PairFolder, recipe: CropRecipe, patch: int, *, jitter: float, seed: int
    ) -> None:
        self.folder, self.recipe, self.patch, self.jitter, self.seed = folder, recipe, patch, jitter, seed
        self.nouns, self.noun_of = folder.nouns, folder.noun_of

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """Read, jitter and cut the pairs of one step; a pair looks the same whoever cuts it."""
        crops, masks = [], []
        for row in rows:
            dice = np.random.default_rng([self.seed, step, int(row)])
            image, mask = _jittered(*self.folder.crop(int(row)), self.jitter, dice)
            region = crop_regions(image, mask[None], self.recipe)
            crops.append(region.crops)
            masks.append(region.masks)
        kept = token_mask(torch.cat(masks), self.patch)
        return PairBatch(torch.cat(crops), kept, torch.from_numpy(self.noun_of[rows]))


def _jittered(
    image: np.ndarray, mask: np.ndarray, share: float, dice: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut up to `share` off the sides (like RandomResizedCrop 0.9..1), if some of the region stays."""
    height, width = mask.shape
    top, bottom = (int(v) for v in dice.uniform(0, share / 2 * height, 2))
    left, right = (int(v) for v in dice.uniform(0, share / 2 * width, 2))
    window = np.s_[top : height - bottom, left : width - right]
    return (image[window], mask[window]) if mask[window].any() else (image, mask)


class StemPairs:
    """Pairs as kept stem features of the mini tower, with vanilla's opinion of each region in its context.

    The opinion is the mean of two looks, at the region with its background painted over and at its box as it
    is. Together they name more regions right than either alone, so a tower that sees the first one only has
    something to learn from them.

    Args:
        folder: the pairs.
        parts: the folders they come from, each alone; what is computed is kept for each, so that other
            mixtures need not compute it again.
        vanilla: the vanilla model, in the number type it is fast in; its stem is everybody's stem.
        distil: also keep what it thinks of each region.
        text: (M, D) the noun bank under vanilla.
        work: where the features are kept.
    """

    def __init__(
        self,
        folder: PairFolder,
        parts: Sequence[PairFolder],
        vanilla: MaskAdaptedCLIP,
        text: Tensor,
        work: Path,
        *,
        distil: bool,
    ) -> None:
        self.nouns, self.noun_of = folder.nouns, folder.noun_of
        with distributed.first_goes_first():
            found = [_stem_features(part, vanilla, work, distil=distil) for part in parts]
        kept = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        self.stems, self.masks = kept["stems"], kept["masks"]
        self.opinion = _both_looks(vanilla, self.stems, kept["whole"]) if distil else None
        self.text = text.cpu()
        self.scale = vanilla.score_scale

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The kept features of the pairs of one step."""
        index = torch.from_numpy(np.asarray(rows))
        targets = None
        if self.opinion is not None:
            targets = (self.scale * self.opinion[index] @ self.text.T).softmax(-1)
        nouns = torch.from_numpy(self.noun_of[rows])
        return PairBatch(self.stems[index].float(), self.masks[index].float(), nouns, targets)


@torch.inference_mode()
def _stem_features(
    folder: PairFolder, clip: MaskAdaptedCLIP, work: Path, *, distil: bool
) -> dict[str, Tensor]:
    """Stem features of every masked crop, and the model's features of the boxes unmasked; computed once."""
    who = f"{folder.digest}/{_stem_digest(clip)}/{clip.weights_sha256 if distil else ''}"
    path = work / f"stems_{hashlib.sha256(who.encode()).hexdigest()[:16]}.safetensors"
    if path.is_file():
        return load_file(path)
    stems, masks, whole = [], [], []
    tower: Any = clip.image_tower
    for start in tqdm(range(0, len(folder), CROPS_AT_ONCE), desc="stem features"):
        pairs = [folder.crop(row) for row in range(start, min(start + CROPS_AT_ONCE, len(folder)))]
        cut = [crop_regions(image, mask[None], clip.crop_recipe) for image, mask in pairs]
        crops = torch.cat([region.crops for region in cut]).to(clip.dtype)
        pixels = crops.contiguous(memory_format=torch.channels_last)
        stems.append(tower.trunk.stem(pixels).half().contiguous())
        masks.append(token_mask(torch.cat([region.masks for region in cut]), tower.patch).half())
        if distil:
            whole.append(_unmasked(clip, pairs).half())
    work.mkdir(parents=True, exist_ok=True)
    kept = {"stems": torch.cat(stems), "masks": torch.cat(masks)}
    if whole:
        kept["whole"] = torch.cat(whole)
    save_file(kept, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return kept


@torch.inference_mode()
def _both_looks(vanilla: MaskAdaptedCLIP, stems: Tensor, whole: Tensor) -> Tensor:
    """(P, D) unit vectors from the stems of the masked crops and the features of the boxes unmasked."""
    tower: Any = vanilla.image_tower
    masked = [tower.from_stem(some.to(vanilla.dtype)).float() for some in stems.split(CROPS_AT_ONCE)]
    return functional.normalize(functional.normalize(torch.cat(masked), dim=-1) + whole.float(), dim=-1)


def _unmasked(vanilla: MaskAdaptedCLIP, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    cut = [
        crop_regions(image, np.ones((1, *mask.shape), dtype=bool), vanilla.crop_recipe)
        for image, mask in pairs
    ]
    crops = torch.cat([region.crops for region in cut])
    return vanilla.encode_regions(crops, torch.ones(len(crops), *crops.shape[2:]), use_prompts=False)


def _stem_digest(clip: MaskAdaptedCLIP) -> str:
    digest = hashlib.sha256()
    tower: Any = clip.image_tower
    for value in tower.trunk.stem.state_dict().values():
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def noun_text(clip: MaskAdaptedCLIP, nouns: Sequence[str]) -> Tensor:
    """(M, D) the noun bank in the plainest template, which is also what crops are captioned with."""
    return functional.normalize(clip.encode_text(nouns, "single"), dim=-1)


def open_pairs(settings: AdaptSettings, clip: MaskAdaptedCLIP) -> tuple[CropPairs | StemPairs, Tensor, str]:
    """The pairs as the model's image tower takes them, the noun bank (M, D), and a digest of the pairs.

    Raises:
        DataError: a folder has no manifest, a shard is damaged, or no pair is left.
    """
    folder = PairFolder(*settings.pairs, least_score=settings.least_score)
    # What vanilla thinks of a region is told in more names than the pairs have, lest those be forgotten.
    more = [name for name in hidden_names() if name not in folder.nouns] if settings.distil else []
    text = noun_text(clip, [*folder.nouns, *more])
    tower = clip.image_tower
    if not hasattr(tower, "from_stem"):
        crops = CropPairs(folder, clip.crop_recipe, tower.patch, jitter=settings.jitter, seed=settings.seed)
        return crops, text, folder.digest
    vanilla = load_clip(settings.model, weights="vanilla").compute_in(fast_dtype(torch.device("cpu")))
    parts = [PairFolder(path, least_score=settings.least_score) for path in settings.pairs]
    work = settings.keep or settings.out
    stems = StemPairs(folder, parts, vanilla, text, work, distil=bool(settings.distil))
    return stems, text, folder.digest
