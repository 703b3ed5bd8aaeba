"""Embed names batch by batch, with a step of progress before each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovseg_demo.merging.published_rules import OTHERS
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.naming.hidden_names import hidden_names
from ovseg_demo.progress import Progress
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["names_compared", "text_progress"]


def names_compared(vocabulary: Vocabulary, *, with_hidden: bool) -> tuple[str, ...]:
    """The names that `Classifier.score` embeds with the request's sentences."""
    return (*vocabulary.prompts, *(hidden_names() if with_hidden else ()), OTHERS)


def text_progress(
    classifier: Classifier, names: Sequence[str], templates: str, start: float, end: float
) -> Iterator[Progress]:
    """Embed names; the classifier keeps them for what follows.

    Args:
        classifier: embeds them; names that it knows already cost nothing.
        names: to embed.
        templates: sentences around a name.
        start: share of the request that is done before, 0 to 1.
        end: share that is done afterwards.

    Yields:
        A step before each batch.
    """
    for done in range(0, len(names), classifier.NAMES_AT_ONCE):
        told = f"Reading words: {done} of {len(names)}" if done else f"Reading {len(names)} words"
        yield Progress("text", start + (end - start) * done / len(names), told)
        classifier.text(names[done : done + classifier.NAMES_AT_ONCE], templates)
