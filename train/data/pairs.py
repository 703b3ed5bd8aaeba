"""Mined pairs as a training step wants them.

Large towers read crops from the shards at every step. The mini tower's stem is never trained, so what it
makes of a few views of each crop is computed once and kept; a step then starts behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.devices import fast_dtype
from ovseg_demo.hidden_names import hidden_names
from ovseg_demo.regions import CropRecipe, crop_regions
from train.core import distributed
from train.core.files import write_tensors
from train.core.recipe import AdaptSettings
from train.data.pair_batch import PairBatch
from train.data.pair_folder import PairFolder
from train.data.pseudo_labels import allowed_names, pseudo_labels

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
        """Read, jitter and cut the pairs of one step; the result depends on seed, step and row alone."""
        crops, masks = [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, int(row)])
            image, mask = _jittered(*self.folder.crop(int(row)), self.jitter, rng)
            region = crop_regions(image, mask[None], self.recipe)
            crops.append(region.crops)
            masks.append(region.masks)
        kept = token_mask(torch.cat(masks), self.patch)
        return PairBatch(torch.cat(crops), kept, torch.from_numpy(self.noun_of[rows]))


def _jittered(
    image: np.ndarray, mask: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut up to `share` off the sides (like RandomResizedCrop 0.9..1), if some of the region stays."""
    height, width = mask.shape
    top, bottom = (int(v) for v in rng.uniform(0, share / 2 * height, 2))
    left, right = (int(v) for v in rng.uniform(0, share / 2 * width, 2))
    window = np.s_[top : height - bottom, left : width - right]
    return (image[window], mask[window]) if mask[window].any() else (image, mask)


class StemPairs:
    """Pairs as kept stem features of the mini tower, with vanilla's opinion of each region in its context.

    The opinion is the mean over two views, the region with its background painted over and its box as it
    is. Together they name more regions right than either alone, so a tower that sees the first one only has
    something to learn from them.

    Args:
        folder: the pairs.
        parts: the folders they come from, each alone; what is computed is kept for each, so that other
            mixtures need not compute it again.
        vanilla: the vanilla model, in the number type it is fast in; all towers share its stem.
        distil: also keep what it thinks of each region.
        text: (M, D) the noun bank under vanilla.
        work: where the features are kept.
        looks: how many views of each pair are kept: the crop as it is, then jittered ones, some mirrored.
        jitter: largest share cut off a crop's sides in those.
        unnamed: regions without a noun per pair, 0 to 1; more than 0 only with `distil`.
        bank: the M names of `text`.
        seed: of the draw of regions without a noun.
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
        looks: int,
        jitter: float,
        unnamed: float,
        bank: Sequence[str],
        seed: int,
    ) -> None:
        self.nouns, self.noun_of = folder.nouns, folder.noun_of
        with distributed.main_process_first():
            each = [
                [_stem_features(part, vanilla, work, view, jitter) for view in range(looks)] for part in parts
            ]
            whole = [_boxes_unmasked(part, vanilla, work) for part in parts] if distil else []
            unlabeled = (
                [_unlabeled_stems(part, vanilla, work) for part in parts if part.candidate_nouns]
                if unnamed
                else []
            )
        self.stems = [torch.cat([part[view]["stems"] for part in each]) for view in range(looks)]
        self.masks = [torch.cat([part[view]["masks"] for part in each]) for view in range(looks)]
        self.teacher = _teacher_features(vanilla, self.stems[0], torch.cat(whole)) if distil else None
        self.text = text.cpu()
        self.scale = vanilla.score_scale
        self.unnamed, self.seed = unnamed if unlabeled else 0.0, seed
        if unlabeled:
            self.unlabeled_stems, self.unlabeled_masks = (
                torch.cat([one[what] for one in unlabeled]) for what in ("stems", "masks")
            )
            may, mentioned = allowed_names(bank, self.text, folder.candidate_nouns)
            seen = _masked_features(vanilla, self.unlabeled_stems)
            self.unlabeled_labels = pseudo_labels(seen, self.scale, self.text, may, mentioned)

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The kept features of the pairs of one step; a pair's views take turns."""
        index, nouns = torch.from_numpy(np.asarray(rows)), torch.from_numpy(self.noun_of[rows])
        targets = None
        if self.teacher is not None:
            targets = (self.scale * self.teacher[index] @ self.text.T).softmax(-1)
        view = [(row + step) % len(self.stems) for row in rows.tolist()]
        stems, masks = (
            torch.stack([kept[at][row] for at, row in zip(view, index, strict=True)]).float()
            for kept in (self.stems, self.masks)
        )
        if self.unnamed and targets is not None:
            unlabeled = self._unlabeled_rows(rows, step)
            stems = torch.cat([stems, self.unlabeled_stems[unlabeled].float()])
            masks = torch.cat([masks, self.unlabeled_masks[unlabeled].float()])
            targets = torch.cat([targets, self.unlabeled_labels[unlabeled].float()])
        return PairBatch(stems, masks, nouns, targets)

    def _unlabeled_rows(self, rows: np.ndarray, step: int) -> list[int]:
        """The regions without a noun that these pairs bring along, whichever process they are on."""
        found = []
        for row in rows.tolist():
            rng = np.random.default_rng([self.seed, step, row])
            if rng.random() < self.unnamed:
                found.append(int(rng.integers(len(self.unlabeled_stems))))
        return found


def _unlabeled_stems(folder: PairFolder, clip: MaskAdaptedCLIP, work: Path) -> dict[str, Tensor]:
    """Stem features and token masks of the regions without a noun; computed once."""

    def compute(rows: range) -> dict[str, Tensor]:
        return _stems_of(clip, [folder.unlabeled_crop(row) for row in rows])

    cache_key = f"{folder.unlabeled_digest}/{_stem_digest(clip)}"
    return _cached(work, "unnamed", cache_key, len(folder.candidate_nouns), compute)


def _stems_of(clip: MaskAdaptedCLIP, crops: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
    tower: Any = clip.image_tower
    cut = [crop_regions(image, mask[None], clip.crop_recipe) for image, mask in crops]
    stems = tower.stem(torch.cat([region.crops for region in cut]).to(clip.dtype))
    kept = token_mask(torch.cat([region.masks for region in cut]), tower.patch)
    return {"stems": stems.half(), "masks": kept.half()}


def _stem_features(
    folder: PairFolder, clip: MaskAdaptedCLIP, work: Path, view: int, jitter: float
) -> dict[str, Tensor]:
    """Stem features and token masks of one view of every masked crop; computed once."""

    def compute(rows: range) -> dict[str, Tensor]:
        pairs = [folder.crop(row) for row in rows]
        if view:
            pairs = [_augmented(*pair, jitter, [view, row]) for pair, row in zip(pairs, rows, strict=True)]
        return _stems_of(clip, pairs)

    cache_key = f"{folder.digest}/{_stem_digest(clip)}/{view}/{jitter if view else 0}"
    return _cached(work, "stems", cache_key, len(folder), compute)


def _boxes_unmasked(folder: PairFolder, vanilla: MaskAdaptedCLIP, work: Path) -> Tensor:
    """(P, D) vanilla's features of the boxes as they are; computed once."""

    def compute(rows: range) -> dict[str, Tensor]:
        return {"whole": _unmasked(vanilla, [folder.crop(row) for row in rows]).half()}

    return _cached(work, "whole", f"{folder.digest}/{vanilla.weights_sha256}", len(folder), compute)["whole"]


def _augmented(
    image: np.ndarray, mask: np.ndarray, jitter: float, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """A jittered crop, mirrored half the time."""
    rng = np.random.default_rng(seed)
    image, mask = _jittered(image, mask, jitter, rng)
    return (image[:, ::-1].copy(), mask[:, ::-1].copy()) if rng.random() < 0.5 else (image, mask)


@torch.inference_mode()
def _cached(
    work: Path, what: str, cache_key: str, count: int, compute: Callable[[range], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `compute` makes of all rows, from its file if it was computed before."""
    path = work / f"{what}_{hashlib.sha256(cache_key.encode()).hexdigest()[:16]}.safetensors"
    if path.is_file():
        return load_file(path)
    starts = range(0, count, CROPS_AT_ONCE)
    found = [compute(range(at, min(at + CROPS_AT_ONCE, count))) for at in tqdm(starts, desc=what)]
    whole = {name: torch.cat([one[name] for one in found]).contiguous() for name in found[0]}
    write_tensors(path, whole)
    return whole


@torch.inference_mode()
def _teacher_features(vanilla: MaskAdaptedCLIP, stems: Tensor, whole: Tensor) -> Tensor:
    """(P, D) unit vectors from the stems of the masked crops and the features of the boxes unmasked."""
    return functional.normalize(_masked_features(vanilla, stems) + whole.float(), dim=-1)


@torch.inference_mode()
def _masked_features(vanilla: MaskAdaptedCLIP, stems: Tensor) -> Tensor:
    """(P, D) unit vectors from the stems of masked crops."""
    tower: Any = vanilla.image_tower
    masked = [tower.from_stem(some.to(vanilla.dtype)).float() for some in stems.split(CROPS_AT_ONCE)]
    return functional.normalize(torch.cat(masked), dim=-1)


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
    # Distillation covers more names than the pairs have, so that those are not forgotten.
    more = [name for name in hidden_names() if name not in folder.nouns] if settings.distil else []
    bank = [*folder.nouns, *more]
    text = noun_text(clip, bank)
    tower = clip.image_tower
    if not hasattr(tower, "from_stem"):
        crops = CropPairs(folder, clip.crop_recipe, tower.patch, jitter=settings.jitter, seed=settings.seed)
        return crops, text, folder.digest
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
        looks=settings.looks,
        jitter=settings.jitter,
        unnamed=(settings.unnamed or 0.0) if settings.distil else 0.0,
        bank=bank,
        seed=settings.seed,
    )
    return stems, text, folder.digest + folder.unlabeled_digest * bool(stems.unnamed)
