"""Nouns and noun phrases of a caption.

Tagger: TextBlob's PatternTagger, whose lexicon and rules ship inside the package (no download, unlike NLTK's
models or spaCy's English pipeline).
"""

from __future__ import annotations

import re
from functools import lru_cache

from textblob.en import tag
from textblob.en.inflect import singularize

# Words that name a place in the picture, the picture itself, an amount or nobody in particular.
STOP_NOUNS = frozenset(
    """
    side top bottom front back background foreground middle center centre edge corner end left right part
    piece pair couple bunch group lot number variety set row line kind type sort amount close up closeup picture
    photo photograph image view shot scene area place spot thing something someone somebody one other another
    each two three four five way day time distance air position look looking others while in on at it them him
    her his its their trick jump moment action camera inside outside use first second direction color colour
    size shape style
    """.split()  # noqa: SIM905
)
_WORD = re.compile(r"[a-z][a-z'-]+$")


@lru_cache(maxsize=100_000)
def _singular(word: str) -> str:
    if word.endswith(("ss", "us", "is")) or word in {
        "grass",
        "glass",
        "dress",
        "bus",
        "jeans",
        "shorts",
        "pants",
    }:
        return word
    return str(singularize(word))


def caption_nouns(caption: str) -> tuple[str, ...]:
    """The nouns and compound nouns of a caption, singular, without stop-nouns, in order of appearance.

    A run of nouns gives itself and its head: "tennis balls" gives "tennis ball" and "ball".

    >>> caption_nouns("Two brown dogs run after tennis balls on the grass.")
    ('dog', 'tennis ball', 'ball', 'grass')
    """
    found: dict[str, None] = {}
    run: list[str] = []
    words = re.sub(r"[^\w\s'-]", " . ", caption.lower())
    for word, kind in [*tag(words, tokenize=True), (".", ".")]:
        if kind in ("NN", "NNS", "NNP", "NNPS") and _WORD.match(word):
            run.append(_singular(word) if kind in ("NNS", "NNPS") else word)
            continue
        if run and run[-1] not in STOP_NOUNS:
            compound = " ".join(word for word in run[-2:] if word not in STOP_NOUNS)
            found.setdefault(compound)
            found.setdefault(run[-1])
        run = []
    return tuple(found)
