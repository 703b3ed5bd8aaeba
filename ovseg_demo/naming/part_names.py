"""Names of parts and what they are parts of: a wheel belongs to the car unless "wheel" was typed."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.vocabulary import Vocabulary, fold

FILE = "parts.txt"


@lru_cache(maxsize=1)
def part_table() -> dict[str, frozenset[str]]:
    """Each part with its possible wholes, folded; written by `python -m train.part_names`."""
    text = (files("ovseg_demo") / "presets" / FILE).read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if line and not line.startswith("#")]
    return {row[0].strip(): frozenset(fold(name.strip()) for name in row[1:]) for row in rows}


def parts_of(vocabulary: Vocabulary) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """The parts of typed classes that were not typed themselves.

    Args:
        vocabulary: C typed classes.

    Returns:
        P names of parts, and (P, C) bool: which classes each may be a part of.
    """
    typed = {fold(name) for name in vocabulary.prompts}
    synonyms: list[set[str]] = [{fold(name) for name in item.synonyms} for item in vocabulary]
    found: dict[str, list[bool]] = {}
    for part, wholes in part_table().items():
        row = [not wholes.isdisjoint(names) for names in synonyms]
        if any(row) and not _typed(part, typed):
            found[part] = row
    table = np.array(list(found.values()), dtype=np.bool_).reshape(len(found), len(vocabulary))
    return tuple(found), table


def _typed(part: str, typed: set[str]) -> bool:
    """Whether a part, or a word that it ends in ("front leg": "leg"), was typed."""
    words = fold(part).split(" ")
    return any(" ".join(words[start:]) in typed for start in range(len(words)))
