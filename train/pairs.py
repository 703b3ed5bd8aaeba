"""Mined pairs as a training step wants them.

Large towers read crops from the shards at every step. The mini tower's stem is never trained, so what it
makes of each crop is computed once and kept; a step then starts behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.regions import crop_regions
from train.adapt import PairBatch
from train.pair_folder import PairFolder

CROPS_AT_ONCE = 32


class CropPairs:
    """Pairs read from shards at each step, cut out by the demo's own crop function; any image tower."""

    def __init__(self, folder: PairFolder, clip: MaskAdaptedCLIP, *, jitter: float, seed: int) -> None:
        self.folder, self.clip, self.jitter, self.seed = folder, clip, jitter, seed
        self.nouns, self.noun_of = folder.nouns, folder.noun_of

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """Read, jitter and cut the pairs of one step; the same step gives the same crops."""
        dice = np.random.default_rng([self.seed, step, int(rows[0]) if len(rows) else 0])
        crops, masks = [], []
        for row in rows:
            image, mask = _jittered(*self.folder.crop(int(row)), self.jitter, dice)
            region = crop_regions(image, mask[None], self.clip.crop_recipe)
            crops.append(region.crops)
            masks.append(region.masks)
        device = self.clip.device
        kept = token_mask(torch.cat(masks), self.clip.image_tower.patch)
        nouns = torch.from_numpy(self.noun_of[rows])
        return PairBatch(torch.cat(crops).to(device), kept.to(device), nouns.to(device))


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
    """Pairs as kept stem features of the mini tower, with vanilla's opinion of the same box unmasked.

    Args:
        folder: the mined pairs.
        vanilla: the vanilla model, in the number type it is fast in; its stem is everybody's stem.
        distil: also keep what it thinks of each box unmasked.
        text: (M, D) the noun bank under vanilla.
        work: where the features are kept.
    """

    def __init__(
        self,
        folder: PairFolder,
        vanilla: MaskAdaptedCLIP,
        text: Tensor,
        work: Path,
        *,
        distil: bool,
    ) -> None:
        self.nouns, self.noun_of = folder.nouns, folder.noun_of
        kept = _stem_features(folder, vanilla, work, distil=distil)
        self.stems, self.masks, self.whole = kept["stems"], kept["masks"], kept.get("whole")
        self.text = text
        self.scale = vanilla.score_scale

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The kept features of the pairs of one step."""
        index = torch.from_numpy(np.asarray(rows))
        targets = None
        if self.whole is not None:
            targets = (self.scale * self.whole[index].float() @ self.text.T).softmax(-1)
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
    tower = clip.image_tower
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


def _unmasked(vanilla: MaskAdaptedCLIP, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    cut = [
        crop_regions(image, np.ones((1, *mask.shape), dtype=bool), vanilla.crop_recipe)
        for image, mask in pairs
    ]
    crops = torch.cat([region.crops for region in cut])
    return vanilla.encode_regions(crops, torch.ones(len(crops), *crops.shape[2:]), use_prompts=False)


def _stem_digest(clip: MaskAdaptedCLIP) -> str:
    digest = hashlib.sha256()
    for value in clip.image_tower.trunk.stem.state_dict().values():
        digest.update(value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def noun_text(clip: MaskAdaptedCLIP, nouns: Sequence[str]) -> Tensor:
    """(M, D) the noun bank in the plainest template, which is also what crops are captioned with."""
    return functional.normalize(clip.encode_text(nouns, "single"), dim=-1)
