"""Hidden names: names that were not typed and compete with the typed ones.

A softmax over two typed words always picks one of them. With the things and stuff of COCO and ADE20K beside
them, a typed word that is not in the photo loses to a name of what the photo shows (the vocabulary expansion
of SAN). A hidden name that means the same as a typed one must not compete: "puppy" would win against "dog".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.vocabulary import Vocabulary, fold

SOURCES = ("coco-133", "ade20k-150")


@lru_cache(maxsize=1)
def hidden_names() -> tuple[str, ...]:
    """The hidden names, each once."""
    names: dict[str, str] = {}
    for source in SOURCES:
        for item in Vocabulary.preset(source):
            names.setdefault(fold(item.name), item.name)
    return tuple(names.values())


def competing_names(
    typed: Sequence[str],
    typed_features: NDArray[np.float32],
    hidden: Sequence[str],
    hidden_features: NDArray[np.float32],
    most_alike: float,
) -> NDArray[np.bool_]:
    """Which hidden names may compete with the typed ones.

    A hidden name is left out if it ends in the same word as a typed one ("wooden fence", "fence"; "dining
    table", "table"), or if its text feature is too close to that of any typed one: regions that are nearly a
    typed thing are better told apart by the typed names alone.

    Args:
        typed: the typed names, synonyms included.
        typed_features: (n, D) unit vectors.
        hidden: the hidden names.
        hidden_features: (m, D) unit vectors.
        most_alike: highest cosine with a typed name.

    Returns:
        (m,) bool.
    """
    heads = {head for name in typed for head in _compared(name)}
    by_word = np.array([not heads.isdisjoint(both) for both in _all_compared(tuple(hidden))], dtype=bool)
    by_meaning = (hidden_features @ typed_features.T).max(axis=1) > most_alike
    return np.asarray(~(by_word | by_meaning))


@lru_cache(maxsize=2)
def _all_compared(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The same for many names; cached, since the hidden names are the same for every request."""
    return tuple(_compared(name) for name in names)


def _compared(name: str) -> tuple[str, str]:
    """The whole name, and its last word."""
    return fold(name), head_word(name)


def head_word(name: str) -> str:
    """The last word without a plural s, which says what the thing is: "fire hydrant" is a hydrant."""
    return fold(name).replace("-", " ").split(" ")[-1].removesuffix("s")
