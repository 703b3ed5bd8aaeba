"""The paper's two merge rules, from scores of masks to a label map: its benchmark's and its demo's.

They serve comparison with the paper; `default_rule.py` has the default. Both weight every mask by its class
probabilities and sum the masks per class; the largest sum decides the class of a pixel. They differ in the
masks that take part:

    "benchmark"       every mask, soft, classified by CLIP, by the segmenter, or by both together
    "published-demo"  per class the mask with its highest probability, thresholded; other pixels stay blank

The authors' code fails on one usable mask, on none, and on an unusable mask in the demo with a weight. Here a
batch of one is a batch, and a mask without a pixel has no influence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

PublishedRule = Literal["benchmark", "published-demo"]

OTHERS = "others"
DEMO_MASK_THRESHOLD = 0.35
_NUMBERS_AT_ONCE = 1 << 26  # of one score map in memory: 256 MB


@dataclass(frozen=True)
class PublishedMaps:
    """Result of a published rule.

    Attributes:
        label_map: (h, w) uint16, 0 = blank, i = the i-th name.
        region_map: (h, w) uint16, 0 = none, k = the k-th mask: the one that adds most to the pixel's class.
        probabilities: (K, C) float32, of every mask for every class; rows of masks without influence are 0.
    """

    label_map: NDArray[np.uint16]
    region_map: NDArray[np.uint16]
    probabilities: NDArray[np.float32]


def demo_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names that the published demo scores: "others" is appended to a single name."""
    return (*names, OTHERS) if len(names) == 1 else tuple(names)


def merge_published(
    rule: PublishedRule,
    names: Sequence[str],
    masks: Tensor,
    clip_logits: Tensor | None,
    index: Tensor,
    *,
    segmenter_logits: Tensor | None = None,
    weight: float = 0.0,
    mask_threshold: float = DEMO_MASK_THRESHOLD,
    size: tuple[int, int] | None = None,
) -> PublishedMaps:
    """Decide every pixel by one of the published rules.

    Args:
        rule: which one.
        names: the user's N names. For the demo the logits have one column per name of `demo_names(names)`;
            where the appended "others" wins a pixel, it is left blank here (the published demo paints it).
        masks: (K, H, W) soft masks in 0..1, or bool.
        clip_logits: (R, C) 100 * cosine of the masks with a pixel; None classifies by the segmenter alone.
        index: (R,) which of the K masks the rows of `clip_logits` are.
        segmenter_logits: (K, C + 1) of a segmenter that names its masks itself, "no object" last.
        weight: share of CLIP in 0..1 (published: 0.7 for ADE20K, 0.6 for Pascal Context, 0.45 for Pascal
            VOC). 0, the demo's, stands for CLIP alone; above it the segmenter's logits are needed.
        mask_threshold: a pixel belongs to a mask of the demo strictly above it.
        size: height and width of the result; that of the masks if None.

    Raises:
        ValueError: the arguments do not belong together.
    """
    soft = masks.float()
    probabilities = mask_probabilities(len(masks), clip_logits, index, segmenter_logits, weight)
    weights = probabilities
    if rule == "published-demo":
        columns = demo_names(names)
        soft = hard_masks(soft, mask_threshold)
        has_pixels = soft.flatten(1).any(dim=1, keepdim=True)  # a mask without pixels must not be picked
        weights = keep_picked(probabilities * has_pixels, rival=len(columns) == 2 and columns[1] == OTHERS)
    elif rule != "benchmark":
        raise ValueError(f"There is no published rule {rule!r}; choose 'benchmark' or 'published-demo'.")
    labels = label_map(weights, soft, size)
    labels[labels > len(names)] = 0
    regions = strongest_masks(weights, soft, labels)
    return PublishedMaps(
        labels.cpu().numpy().astype(np.uint16),
        regions.cpu().numpy().astype(np.uint16),
        probabilities.cpu().numpy(),
    )


def mask_probabilities(
    count: int, clip_logits: Tensor | None, index: Tensor, segmenter_logits: Tensor | None, weight: float
) -> Tensor:
    """Class probabilities of every mask: CLIP's B, the segmenter's A, or the ensemble A^(1-w) * B^w.

    A is a softmax over the classes and "no object", which is dropped afterwards; B is a softmax over the
    classes alone. A mask without a pixel has no CLIP logits: B is 1 in the product, and with weight 0 its row
    is 0.

    Returns:
        (count, C) float32.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"The weight of CLIP must lie in 0..1, not be {weight}.")
    segmenter = None if segmenter_logits is None else segmenter_logits.float().softmax(dim=-1)[:, :-1]
    if clip_logits is None or weight > 0:
        if segmenter is None:
            raise ValueError(
                "Without logits of a segmenter, CLIP must classify alone: give its logits and weight 0."
            )
        if len(segmenter) != count:
            raise ValueError(f"There are {count} masks but logits for {len(segmenter)}.")
        if clip_logits is None:
            return segmenter
    clip = clip_logits.float().softmax(dim=-1)
    rows = clip.new_full((count, clip.shape[1]), 1.0 if weight > 0 else 0.0).index_copy(0, index, clip)
    if segmenter is None or weight == 0:
        return rows
    return segmenter ** (1 - weight) * rows**weight


def keep_picked(probabilities: Tensor, *, rival: bool) -> Tensor:
    """Keep, for every class, the row of the mask with its highest probability; other rows become 0.

    Args:
        probabilities: (K, C).
        rival: the second of two classes is "others" and picks no mask of its own.
    """
    kept = torch.zeros_like(probabilities)
    if len(probabilities):
        picked = probabilities.argmax(dim=0)
        picked = picked[:1] if rival else picked
        kept[picked] = probabilities[picked]
    return kept


def hard_masks(soft: Tensor, threshold: float) -> Tensor:
    """Threshold (K, H, W) soft masks: float32, 1 strictly above the threshold, else 0."""
    return (soft > threshold).float()


def class_scores(weights: Tensor, masks: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Sum the masks, weighted per class, and resize the sums.

    Args:
        weights: (K, C).
        masks: (K, H, W) float32.
        size: h, w; that of the masks if None.

    Returns:
        (C, h, w) float32.
    """
    scores = torch.einsum("kc,khw->chw", weights, masks)
    if size is None or size == scores.shape[1:]:
        return scores
    return functional.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]


def label_map(weights: Tensor, masks: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """The class with the largest score of each pixel, the earlier one of two equal ones.

    A pixel is blank where every score is 0, outside all masks. The published demo tests the score of the
    first class only, which is the same as long as probabilities are above 0.

    Returns:
        (h, w) int64, 0 = blank, i = the i-th class.
    """
    height, width = size or masks.shape[1:]
    best = masks.new_zeros(height, width)
    labels = torch.zeros(height, width, dtype=torch.int64, device=masks.device)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, height * width))
    for start in range(0, weights.shape[1], at_once):
        scores, classes = class_scores(weights[:, start : start + at_once], masks, size).max(dim=0)
        better = scores > best
        labels = torch.where(better, classes + start + 1, labels)
        best = torch.where(better, scores, best)
    return labels


def strongest_masks(weights: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """For each pixel the mask that adds most to the score of its class, at the size of the masks.

    Args:
        weights: (K, C).
        masks: (K, H, W) float32.
        labels: (h, w) int64 from `label_map`.

    Returns:
        (h, w) int64, 0 = none, k = the k-th mask.
    """
    size = (masks.shape[1], masks.shape[2])
    own = _to_size(labels, size)
    best = masks.new_zeros(size)
    strongest = torch.zeros_like(own)
    blank = weights.new_zeros(1)
    for number, (row, mask) in enumerate(zip(weights, masks, strict=True), start=1):
        if row.any():
            share = mask * torch.cat([blank, row])[own]
            better = share > best
            strongest = torch.where(better, number, strongest)
            best = torch.where(better, share, best)
    return torch.where(labels > 0, _to_size(strongest, (labels.shape[0], labels.shape[1])), 0)


def _to_size(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) whole numbers at another size, nearest neighbour."""
    if values.shape == size:
        return values
    return functional.interpolate(values[None, None].double(), size, mode="nearest-exact")[0, 0].long()
