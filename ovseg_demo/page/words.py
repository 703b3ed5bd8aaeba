"""Help with words: published lists, words that are surely not there, and what else the photo might show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovseg_demo.page.pool import ModelPool
from ovseg_demo.result import Comparison, Segmentation
from ovseg_demo.vocabulary import Vocabulary, fold

__all__ = ["add_word", "distractors", "preset_text", "what_else"]

_DISTRACTORS = 5
_SUGGESTIONS = 8
_LEAST_SHARE = 0.005
"""Of the photo: smaller things are not worth a suggestion."""


def preset_text(key: str) -> str:
    """A published class list as a person would type it."""
    return ", ".join(" | ".join(item.synonyms) for item in Vocabulary.preset(key))


def add_word(words: str, name: str) -> str:
    """The words with one more at the end, if it is not among them."""
    if fold(name) in {fold(part) for part in _typed(words)}:
        return words
    return f"{words.rstrip().rstrip(',')}, {name}" if words.strip() else name


def distractors(words: str) -> str:
    """The words with five more from the COCO list; the same ones for the same words.

    They are there to be *not found*: a page that finds a zebra in every photo cannot be believed.
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
    result: Segmentation | Comparison, pool: ModelPool, model: str, proposer: str
) -> tuple[str, ...]:
    """Names for the parts of the photo that no typed word fits, most area first.

    Scores the regions that are kept for the photo against the names of COCO and ADE20K; no region is embedded
    again.

    Raises:
        OvsegError: as `Segmenter.__call__`.
    """
    from ovseg_demo.hidden_names import hidden_names

    first = result.adapted if isinstance(result, Comparison) else result
    typed = {fold(word) for c in first.classes for word in c.synonyms}
    names = [name for name in hidden_names() if fold(name) not in typed]
    wide = pool.get(model, proposer)(first.image, names, first.arm)
    shares = _shares(wide, first.label_map == 0)
    best = sorted((share, name) for share, name in zip(shares, names, strict=True) if share >= _LEAST_SHARE)
    return tuple(name for _, name in reversed(best[-_SUGGESTIONS:]))


def _shares(wide: Segmentation, free: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Sequence[float]:
    """Share of the photo that each class takes where `free` is set."""
    counts = np.bincount(wide.label_map[free], minlength=len(wide.classes) + 1)
    return [float(count) / free.size for count in counts[1:]]


def _typed(words: str) -> list[str]:
    return [
        part for entry in words.replace("\n", ",").split(",") for part in entry.split("|") if part.strip()
    ]
