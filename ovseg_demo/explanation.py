"""Why a result is what it is: what mattered in a region for a word, where words and regions lie.

result = segmenter.compare("photo.jpg", "dog, grass")
plain, adapted = region_importance(segmenter, result, result.second.regions[0].id, "dog")
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.clip import RegionCache
from ovseg_demo.errors import VocabularyError, quoted
from ovseg_demo.naming.importance import Importance, OcclusionCache, word_importance
from ovseg_demo.naming.shared_space import SharedSpace, project
from ovseg_demo.progress import Progress, embedding_progress, map_steps, run_to_end
from ovseg_demo.proposals import working_image
from ovseg_demo.result import Arm, Comparison, Segmentation
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["region_importance", "shared_space", "stream_importance", "stream_space"]


def region_importance(
    segmenter: Segmenter,
    result: Segmentation | Comparison,
    region_id: int,
    word: str | None = None,
    arms: Sequence[Arm] | None = None,
) -> tuple[Importance, ...]:
    """What mattered in the crop of a region for a word.

    Args:
        segmenter: the one that made the result.
        result: with its masks.
        region_id: of one of its regions.
        word: one of the typed names; the region's own, or the best one if nothing claims it, if None.
        arms: any arms of the model; those of the result if None.

    Returns:
        One `Importance` for each arm.

    Raises:
        KeyError: there is no such region.
        ValueError: the result has no masks.
        VocabularyError: the word was not asked for.
    """
    every = result.arms if isinstance(result, Comparison) else (result,)
    seg = every[-1]
    region = seg.region(region_id)
    if seg.masks is None:
        raise ValueError("The result has no masks.")
    word = word or (seg.classes[region.class_index - 1].name if region.class_index else region.top[0][0])
    index = next((c.index for c in seg.classes if word in c.synonyms), None)
    if index is None:
        raise VocabularyError(f"{quoted(word)} is not among the words that were asked for.")
    mask = seg.masks[[one.id for one in seg.regions].index(region_id)]
    return run_to_end(
        stream_importance(segmenter, seg, mask, index, tuple(arms or [one.arm for one in every]))
    )


def stream_importance(
    segmenter: Segmenter,
    result: Segmentation,
    mask: NDArray[np.bool_],
    class_index: int,
    arms: tuple[Arm, ...],
) -> Generator[Progress, None, tuple[Importance, ...]]:
    """The same step by step, for any mask.

    Args:
        segmenter: has the models of the result.
        result: gives photo, words, merge rule and sentences.
        mask: (h, w) bool at any size, with at least one pixel.
        class_index: 1-based, a class of the result.
        arms: which arms are asked.

    Raises:
        ValueError: the mask has no pixel at the working size.
        IndexError: there is no such class.
    """
    working = _working_image(segmenter, result)
    mask = _at_size(mask, working)
    vocabulary, found = _words(segmenter, result), []
    options: dict[str, Any] = {
        "templates": str(result.settings["templates"]),
        "rule": str(result.settings["merge"]),
        "cache": OcclusionCache(),
    }
    for number, arm in enumerate(arms):
        steps = word_importance(
            segmenter.classifier(arm), arm, working, mask, vocabulary, class_index, **options
        )

        def told(share: float, before: int = number) -> Progress:
            fraction = (before + share) / len(arms)
            return Progress("embed", fraction, "Hiding parts of the region")

        found.append((yield from map_steps(steps, told)))
    return tuple(found)


def shared_space(segmenter: Segmenter, result: Segmentation | Comparison) -> SharedSpace:
    """Where the words and the regions of a result lie in the space that they share, on one map for its arms.

    Args:
        segmenter: the one that made the result.
        result: with its masks.

    Raises:
        ValueError: the result has no masks or no regions, or its arms have no common space.
    """
    every = result.arms if isinstance(result, Comparison) else (result,)
    masks = every[-1].masks
    if masks is None:
        raise ValueError("The result has no masks.")
    return run_to_end(stream_space(segmenter, every[-1], masks, tuple(one.arm for one in every)))


def stream_space(
    segmenter: Segmenter, result: Segmentation, masks: NDArray[np.bool_], arms: tuple[Arm, ...]
) -> Generator[Progress, None, SharedSpace]:
    """The same step by step, for any masks.

    Args:
        segmenter: has the models of the result.
        result: gives photo, words and sentences.
        masks: (R, h, w) bool at any size, each with at least one pixel.
        arms: which arms are shown, of one width of features.

    Raises:
        ValueError: there is no mask, or the arms have no common space.
    """
    working = _working_image(segmenter, result)
    masks = np.stack([_at_size(mask, working) for mask in masks]) if len(masks) else masks
    vocabulary, cache = _words(segmenter, result), RegionCache()
    regions, words = {}, {}
    for number, arm in enumerate(arms):
        yield embedding_progress(masks, number / len(arms))
        classifier = segmenter.classifier(arm)
        rows = classifier.clip.encode_photo_regions(working, masks, cache=cache)
        regions[arm] = rows.cpu().numpy()
        words[arm] = classifier.text(vocabulary.names, str(result.settings["templates"]))
    return project(regions, words)


def _working_image(segmenter: Segmenter, result: Segmentation) -> NDArray[np.uint8]:
    return working_image(segmenter.proposer, result.image, int(result.settings["max_side_px"]))


def _at_size(mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A mask at the size of an image; the smallest one keeps a pixel."""
    height, width = image.shape[:2]
    if mask.shape == (height, width):
        return mask
    if not mask.any():
        raise ValueError("The mask has no pixel.")
    size = (width, height)
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    if not resized.any():
        row, column = np.argwhere(mask)[0] * image.shape[:2] // mask.shape
        resized[row, column] = True
    return np.asarray(resized)


def _words(segmenter: Segmenter, result: Segmentation) -> Vocabulary:
    limits = segmenter.settings
    return Vocabulary.parse(
        str(result.settings["vocabulary"]),
        max_names=limits.max_names,
        max_name_length=limits.max_name_length,
    )
