"""Help with words: published lists, words that are surely not there, and what else the photo might show."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.errors import ImageError, VocabularyError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import TAUGHT, YOURS
from ovseg_demo.naming.hidden_names import hidden_names
from ovseg_demo.page.handlers import Request, Result
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.progress import Progress, map_steps
from ovseg_demo.result import Comparison
from ovseg_demo.vocabulary import Vocabulary, fold

__all__ = ["add_word", "distractors", "nouns", "preset_text", "what_else"]

_DISTRACTORS = 5
_SUGGESTIONS = 8
_COMMON_IS_LIKELIER = 4.0
"""Names of COCO and ADE20K's 150, before the long list's: photos show grass more often than megaliths."""
_LEAST_SHARE = 0.002
"""Of the photo, times how well the name fits: less is not worth a suggestion."""


def preset_text(key: str) -> str:
    """A published class list as a person would type it."""
    return ", ".join(item.text for item in Vocabulary.preset(key))


def add_word(words: str, name: str) -> str:
    """The words with one more at the end, if it is not among them."""
    if fold(name) in {fold(part) for part in _typed(words)}:
        return words
    return f"{words.rstrip().rstrip(',')}, {name}" if words.strip() else name


def distractors(words: str) -> str:
    """The words with five more from the COCO list; the same ones for the same words.

    They are expected to be *not found*; a model that finds a zebra in every photo is not usable.
    """
    known = {fold(part) for part in _typed(words)}
    spare = [name for name in Vocabulary.preset("coco-133").names if fold(name) not in known]
    # Spread over the list, so that animals, vehicles, food and furniture are among them.
    step = max(1, len(spare) // _DISTRACTORS)
    start = sum(map(ord, words)) % step
    for name in spare[start::step][:_DISTRACTORS]:
        words = add_word(words, name)
    return words


def what_else(
    request: Request, result: Result | None, pool: ModelPool
) -> Generator[Progress, None, tuple[str, ...]]:
    """Names for the parts of the photo that no typed word fits, most area first, step by step.

    Each region that nothing claims votes for its best names in a list of nouns, with its area. The models are
    those of the result, so that its arm, its regions and its areas belong together; no region is embedded
    again while the photo is kept. Without a result, they are those of the request.

    Args:
        request: photo, words and settings.
        result: of the photo; without one, nothing is claimed yet.
        pool: gives the models.

    Raises:
        OvsegError: there is no photo, or as `Segmenter.__call__`.
    """
    if not request.photo:
        raise ImageError("There is no photo yet; drop one, or take one of the examples.")
    typed = {fold(part) for part in _typed(request.words)}
    yield Progress("read", 0.0, "Looking for names of what the photo shows")
    if result is None:
        limits, models, arm = pool.settings, request.models, request.shared_arms[-1]
        image = load_image(
            Path(request.photo), max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes
        )
        claimed = np.zeros(image.shape[:2], np.uint16)
    else:
        first = result.second if isinstance(result, Comparison) else result
        models, image, claimed = Models.of(first), first.image, first.label_map
        arm = TAUGHT if first.arm == YOURS else first.arm
        typed |= {fold(word) for c in first.classes for word in c.synonyms}
    names = [name for name in nouns() if fold(name) not in typed]

    def told(step: tuple[str, float]) -> Progress:
        return Progress("read", step[1], step[0])

    segmenter = yield from map_steps(load_models(pool, models, (arm,)), told)
    proposals, fits = yield from segmenter.stream_rank(image, names, arm)
    votes = _free_areas(claimed, proposals.masks) @ fits if len(proposals) else np.zeros(len(names))
    common = {fold(name) for name in hidden_names()}
    votes = votes * [_COMMON_IS_LIKELIER if fold(name) in common else 1.0 for name in names]
    best = np.argsort(-votes, kind="stable")
    chosen: list[str] = []
    for name in (names[i] for i in best[: 4 * _SUGGESTIONS] if votes[i] >= _LEAST_SHARE):
        # "wooden floor" adds little to "floor".
        if not any(_alike(name, other) for other in chosen):
            chosen.append(name)
    return tuple(chosen[:_SUGGESTIONS])


@cache
def nouns() -> tuple[str, ...]:
    """The names to choose from."""
    lines = files("ovseg_demo.page").joinpath("nouns.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def _free_areas(label_map: npt.NDArray[np.uint16], masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(R,) share of the photo that each region has where nothing is assigned; 0 if that is not most of it."""
    free = cv2.resize(label_map, masks.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT) == 0
    area = masks.reshape(len(masks), -1).mean(axis=1)
    open_area = (masks & free).reshape(len(masks), -1).mean(axis=1)
    return np.where(open_area > 0.5 * area, open_area, 0.0)


def _alike(name: str, other: str) -> bool:
    return not set(fold(name).split()).isdisjoint(fold(other).split())


def _typed(words: str) -> list[str]:
    """The names and synonyms in a text; none if it cannot be read as words."""
    try:
        return list(Vocabulary.parse(words).prompts)
    except VocabularyError:
        return []
