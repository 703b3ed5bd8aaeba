"""Pairs of the mini tower, which start behind its frozen stem, with vanilla's predictions as soft targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.regions import crop_regions
from train.core import distributed
from train.data.feature_cache import cached_features
from train.data.pair_batch import PairBatch
from train.data.pair_folder import PairFolder
from train.data.pseudo_labels import allowed_names, pseudo_labels
from train.data.stem_features import CROPS_AT_ONCE, mirrored, stem_views, unlabeled_stems


class StemPairs:
    """Pairs as cached stem features of the mini tower, with vanilla's predictions as soft targets.

    A target is the mean over two views, the region with its background painted over and its box as it
    is. Together they name more regions right than either alone, so a tower that sees the first one only has
    something to learn from them.

    Args:
        folder: the pairs.
        parts: the folders they come from, each alone; features are cached for each, so that other mixtures
            need not compute them again.
        vanilla: the vanilla model, in the number type it is fast in; all towers share its stem.
        distil: also compute the soft targets.
        text: (M, D) the noun bank under vanilla.
        work: where the features are kept.
        views: how many views of each pair are kept: the crop as it is, then augmented ones.
        jitter: largest share of height and width that is cut off in those.
        unlabeled_per_pair: regions without a noun for each pair, 0 to 1; more than 0 only with `distil`.
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
        views: int,
        jitter: float,
        unlabeled_per_pair: float,
        bank: Sequence[str],
        seed: int,
    ) -> None:
        self.noun_of, self.right, self.ignored = folder.noun_of, folder.right, folder.ignored
        with distributed.main_process_first():
            each = [stem_views(part, vanilla, work, views=views, jitter=jitter) for part in parts]
            whole = [_boxes_unmasked(part, vanilla, work) for part in parts] if distil else []
            unlabeled = (
                [unlabeled_stems(part, vanilla, work) for part in parts if part.candidate_nouns]
                if unlabeled_per_pair
                else []
            )
        self.stems, self.share = (
            [torch.cat([part[view][what] for part in each]) for view in range(views)]
            for what in ("stems", "share")
        )
        self.teacher = _teacher_features(vanilla, self.stems[0], torch.cat(whole)) if distil else None
        self.text = text.cpu()
        self.scale = vanilla.score_scale
        self.unlabeled_per_pair, self.seed = unlabeled_per_pair if unlabeled else 0.0, seed
        if unlabeled:
            self.unlabeled_stems, self.unlabeled_share = (
                torch.cat([one[what] for one in unlabeled]) for what in ("stems", "share")
            )
            may, mentioned = allowed_names(bank, self.text, folder.candidate_nouns)
            seen = _masked_features(vanilla, self.unlabeled_stems)
            self.unlabeled_labels = pseudo_labels(seen, self.scale, self.text, may, mentioned)

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The kept features of the pairs of one step; a pair's views take turns, half of them mirrored."""
        targets = None
        if self.teacher is not None:
            targets = (self.scale * self.teacher[rows] @ self.text.T).softmax(-1)
        view = [(row + step) % len(self.stems) for row in rows.tolist()]
        stems, share = (
            torch.stack([kept[at][row] for at, row in zip(view, rows.tolist(), strict=True)]).float()
            for kept in (self.stems, self.share)
        )
        flips = [np.random.default_rng([self.seed, step, row, 1]).random() < 0.5 for row in rows.tolist()]
        stems, share = mirrored(stems, share, flips)
        if self.unlabeled_per_pair and targets is not None:
            unlabeled = self._unlabeled_rows(rows, step)
            stems = torch.cat([stems, self.unlabeled_stems[unlabeled].float()])
            share = torch.cat([share, self.unlabeled_share[unlabeled].float()])
            targets = torch.cat([targets, self.unlabeled_labels[unlabeled].float()])
        kept = (share > 0).float().flatten(1)
        return PairBatch(stems, kept, self.right[rows], self.ignored[rows], targets)

    def _unlabeled_rows(self, rows: np.ndarray, step: int) -> list[int]:
        """The regions without a noun that these pairs bring along, whichever process they are on."""
        found = []
        for row in rows.tolist():
            rng = np.random.default_rng([self.seed, step, row])
            if rng.random() < self.unlabeled_per_pair:
                found.append(int(rng.integers(len(self.unlabeled_stems))))
        return found


def _boxes_unmasked(folder: PairFolder, vanilla: MaskAdaptedCLIP, work: Path) -> Tensor:
    """(P, D) vanilla's features of the boxes as they are; computed once."""

    def compute(rows: range) -> dict[str, Tensor]:
        return {"whole": _unmasked(vanilla, [folder.crop(row) for row in rows]).half()}

    key = f"{folder.digest}/{vanilla.weights_sha256}"
    return cached_features(work, "whole", key, len(folder), compute, at_once=CROPS_AT_ONCE)["whole"]


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
