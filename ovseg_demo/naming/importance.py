"""Importance of the parts of a region's crop for a word, by occlusion: parts are hidden one by one.

The crop is cut into cells of whole tokens. A hidden cell is taken out of the region: it is blank in the crop,
a mask prompt replaces its tokens, and an arm that also pools the photo under the region no longer pools
there; the photo itself stays whole. The effect of a cell is how much the word's margin falls without it.

The margin is taken before the softmax, in the units that go into it: the logit of the word less the logit of
its strongest rival, a typed word or a hidden name, both as the merge rule scales them. A margin of m says
that the word is exp(m) times as probable as that rival.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP, RegionCache
from ovseg_demo.clip.changed_crops import Box
from ovseg_demo.merging import Scores
from ovseg_demo.merging.published_rules import OTHERS
from ovseg_demo.naming.classifier import Classifier, PhotoFeatures
from ovseg_demo.regions import CropRecipe, Regions, background_of, crop_regions, padding
from ovseg_demo.result import Arm
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["Importance", "OccludedCrops", "OcclusionCache", "occlude", "word_importance"]

MOST_CELLS = 8
"""Cells a side at most: towers with a finer grid get cells of several tokens, so that 64 crops are enough."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Importance:
    """The effect of each cell on one word in one region, for one arm."""

    arm: Arm
    word: str
    """Name of the class as typed."""
    effect: NDArray[np.float32]
    """(G, G) by how much the margin falls if the cell is hidden: above 0 the cell supports the word, below 0
    it opposes it; 0 where the cell shows nothing of the region."""
    shown: NDArray[np.bool_]
    """(G, G) the cell shows some of the region."""
    margin: float
    """Logit of the word less that of `rival`, before the softmax."""
    rival: str
    """The strongest other name."""
    crop: NDArray[np.uint8]
    """(S, S, 3) RGB, the crop as the arm gets it."""
    pools_photo: bool
    """The arm also looks at the photo under the region, where hidden cells are not pooled."""


@dataclass(frozen=True)
class OccludedCrops:
    """A region, followed by its occlusions, each with one cell hidden.

    Attributes:
        crops: (1 + N, 3, S, S) float32.
        masks: (1 + N, S, S) of 0 and 1.
        photo_masks: (1 + N, H, W) bool, the same cells taken out of the region in the photo.
        shown: (G, G) bool, the N cells that show some of the region, row by row.
        boxes: N of them, the cells in pixels of the crop.
    """

    crops: Tensor
    masks: Tensor
    photo_masks: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    boxes: tuple[Box, ...]


@dataclass
class OcclusionCache:
    """What arms have computed of the same region of the same photo, for the next arm to reuse."""

    crops: dict[tuple[CropRecipe, int], OccludedCrops] = field(default_factory=dict)
    """By recipe and side of a token."""
    regions: dict[str, RegionCache] = field(default_factory=dict)
    """By the hash of the stem."""


def occlude(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    recipe: CropRecipe,
    patch: int,
    *,
    most_cells: int = MOST_CELLS,
) -> OccludedCrops:
    """Cut a region out, and once more for each cell that shows some of it, with that cell hidden.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, with at least one pixel.
        recipe: of the crops.
        patch: side of a token in pixels of the crop.
        most_cells: cells a side at most.

    Raises:
        ValueError: the mask has no pixel or another size.
    """
    regions = crop_regions(image, mask[None], recipe)
    if not len(regions):
        raise ValueError("The mask has no pixel.")
    size = recipe.size
    tokens = size // patch
    cell = patch * -(-tokens // most_cells)
    count = -(-size // cell)
    rows, columns = _cells_of_photo(regions, mask.shape, recipe, cell)
    background, inside = background_of(recipe), regions.masks[0] > 0
    crops, masks, photo_masks, boxes = [regions.crops[0]], [regions.masks[0]], [mask], []
    shown = np.zeros((count, count), dtype=np.bool_)
    for row in range(count):
        for column in range(count):
            place = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            if not bool(inside[place].any()):
                continue
            shown[row, column] = True
            ends = min(size, (column + 1) * cell), min(size, (row + 1) * cell)
            boxes.append((column * cell, row * cell, *ends))
            crop, kept = regions.crops[0].clone(), regions.masks[0].clone()
            crop[:, place[0], place[1]] = background
            kept[place] = 0
            crops.append(crop)
            masks.append(kept)
            photo_masks.append(mask & ~((rows == row)[:, None] & (columns == column)[None, :]))
    stacked = torch.stack(crops), torch.stack(masks), np.stack(photo_masks)
    return OccludedCrops(*stacked, shown, tuple(boxes))


def _cells_of_photo(
    regions: Regions, shape: tuple[int, ...], recipe: CropRecipe, cell: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of cells of each row of the photo, (H,), and column of each column, (W,); others lie outside."""
    left, top, right, bottom = (int(value) for value in regions.boxes[0])
    pad_left, pad_right, pad_top, pad_bottom = padding(bottom - top, right - left, recipe.max_stretch)

    def cells(length: int, start: int, before: int, extent: int) -> NDArray[np.int64]:
        at = np.arange(length) + 0.5 - start + before  # in pixels of the padded box
        return np.floor(at / extent * recipe.size / cell).astype(np.int64)

    return (
        cells(shape[0], top, pad_top, bottom - top + pad_top + pad_bottom),
        cells(shape[1], left, pad_left, right - left + pad_left + pad_right),
    )


def word_importance(
    classifier: Classifier,
    arm: Arm,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    vocabulary: Vocabulary,
    class_index: int,
    *,
    templates: str,
    rule: str = "default",
    cache: OcclusionCache | None = None,
) -> Generator[float, None, Importance]:
    """The importance of a region's cells for one of the typed classes.

    Args:
        classifier: of the arm.
        arm: its name.
        image: (H, W, 3) uint8 RGB at the working size.
        mask: (H, W) bool, the region, with at least one pixel.
        vocabulary: all typed classes.
        class_index: 1-based, which of them.
        templates: sentences around a name.
        rule: the merge rule; only the default one has hidden names and a calibrated scale.
        cache: what other arms have computed of this region of this photo; what they share is not done again.

    Yields:
        The share done, 0..1, between two parts of the work.

    Raises:
        ValueError: the mask has no pixel or another size than the image.
        IndexError: there is no such class.
    """
    if not 1 <= class_index <= len(vocabulary):
        raise IndexError(f"There is no class {class_index} among {len(vocabulary)}.")
    clip = classifier.clip
    cache, key = cache or OcclusionCache(), (clip.crop_recipe, clip.image_tower.patch)
    if key not in cache.crops:
        cache.crops[key] = occlude(image, mask, *key)
    hidden = cache.crops[key]
    yield 0.1
    rows = yield from _embedded(clip, image, hidden, cache.regions)
    scores = classifier.score(
        PhotoFeatures(rows, rows[0], {}), vocabulary, templates, with_hidden=rule == "default"
    )
    margins, rival = _margins(scores, classifier, vocabulary, class_index - 1, rule)
    effect = np.zeros(hidden.shown.shape, dtype=np.float32)
    effect[hidden.shown] = margins[0] - margins[1:]
    return Importance(
        arm=arm,
        word=vocabulary.names[class_index - 1],
        effect=effect,
        shown=hidden.shown,
        margin=float(margins[0]),
        rival=rival,
        crop=_picture(hidden.crops[0], clip.crop_recipe),
        pools_photo=clip.sees_photo,
    )


def _embedded(
    clip: MaskAdaptedCLIP, image: NDArray[np.uint8], hidden: OccludedCrops, caches: dict[str, RegionCache]
) -> Generator[float, None, NDArray[np.float32]]:
    """(1 + N, D) features of a region and of its occlusions."""
    if clip.stem_id is None and not clip.sees_photo:
        rows, count = [], len(hidden.crops)
        for start in range(0, count, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            rows.append(clip.encode_regions(hidden.crops[some], hidden.masks[some]).cpu().numpy())
            yield 0.1 + 0.8 * min(1.0, (start + _AT_ONCE) / count)
        return np.concatenate(rows)
    cache = RegionCache()
    if clip.stem_id is not None:
        # With the stem of these crops in the cache, `encode_photo_regions` cuts none.
        cache = caches.setdefault(clip.stem_id, cache)
        if clip.stem_id not in cache.stems:
            cache.stems[clip.stem_id] = clip.compute_stem(hidden.crops, hidden.masks, hidden.boxes)
            yield 0.5
    found = clip.encode_photo_regions(image, hidden.photo_masks, cache=cache).cpu().numpy()
    yield 0.9
    return np.asarray(found, dtype=np.float32)


def _margins(
    scores: Scores, classifier: Classifier, vocabulary: Vocabulary, column: int, rule: str
) -> tuple[NDArray[np.float32], str]:
    """(1 + N,) margins of a class against the strongest rival of the whole region, and that rival's name."""
    settings = classifier.merge_settings
    scale, bias = (settings.logit_scale, settings.hidden_bias) if rule == "default" else (1.0, 0.0)
    typed = scale * scores.typed
    names = [*np.delete(np.asarray(vocabulary.names, dtype=object), column), *scores.hidden_names]
    rivals = np.concatenate([np.delete(typed, column, axis=1), scale * scores.hidden + bias], axis=1)
    if not names:  # a single word is compared with the one that the published rules add
        names, rivals = [OTHERS], scale * scores.others[:, None]
    best = int(rivals[0].argmax())
    return np.asarray(typed[:, column] - rivals[:, best], dtype=np.float32), str(names[best])


def _picture(crop: Tensor, recipe: CropRecipe) -> NDArray[np.uint8]:
    mean, std = (crop.new_tensor(values).view(3, 1, 1) for values in (recipe.pixel_mean, recipe.pixel_std))
    return np.asarray((crop * std + mean).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())
