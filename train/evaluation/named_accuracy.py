"""Named regions called by one of their right names, among all names of the data (`train/fold0.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.text import Templates
from ovseg_demo.evaluation.metrics import Estimate, bootstrap_draws, interval, percent_of
from train.data.named_regions import NamedPhoto


def all_names(photos: Sequence[NamedPhoto]) -> list[str]:
    """Every right name of a region of these photos, sorted."""
    return sorted({name for photo in photos for region in photo.named() for name in region.names or ()})


def count_right(
    clip: MaskAdaptedCLIP, photos: Sequence[NamedPhoto], names: Sequence[str], templates: Templates
) -> NDArray[np.int64]:
    """How many named regions of each photo get a right name.

    A region counts as right if the name that it is closest to, of all names, is any of its own.

    Args:
        clip: one arm.
        photos: their named regions are asked; one without any counts as nothing.
        names: what they may be called, all their right names among them.
        templates: sentences around a name.

    Returns:
        (photos, 2): regions called right, and all regions.

    Raises:
        DataError: a mask does not fit its photo.
    """
    text = clip.encode_text(names, templates)
    counts = np.zeros((len(photos), 2), dtype=np.int64)
    for row, photo in enumerate(tqdm(photos, desc="named regions", disable=None)):
        regions = photo.named()
        if not regions:
            continue
        features = clip.encode_photo_regions(photo.read(), np.stack([one.mask() for one in regions]))
        best = clip.region_logits(features.cpu().numpy(), text.cpu().numpy(), names).argmax(1).tolist()
        right = [names[k] in (one.names or ()) for k, one in zip(best, regions, strict=True)]
        counts[row] = sum(right), len(right)
    return counts


def accuracy(counts: NDArray[np.int64], draws: int, seed: int) -> Estimate:
    """Percent of regions called right, with its 95 % interval over photos."""
    times = bootstrap_draws(len(counts), draws, seed)
    right, asked = (column.astype(float) for column in counts.T)
    share = percent_of(np.array([right.sum()]), np.array([asked.sum()]))
    return Estimate(float(share[0]), interval(percent_of(times @ right, times @ asked)))


def gain(counts: NDArray[np.int64], base: NDArray[np.int64], draws: int, seed: int) -> Estimate:
    """What `counts` has more than `base`, in points, the same photos and draws for both."""
    times = bootstrap_draws(len(counts), draws, seed)
    both = [(one.T.astype(float), times @ one.astype(float)) for one in (counts, base)]
    value, less = (100 * whole[0].sum() / whole[1].sum() for whole, _ in both)
    drawn, drawn_less = (percent_of(some[:, 0], some[:, 1]) for _, some in both)
    return Estimate(float(value - less), interval(drawn - drawn_less))
