from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.mining.nouns import STOP_NOUNS, caption_nouns, singular


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("Two brown dogs run after tennis balls on the grass.", ("dog", "tennis ball", "ball", "grass")),
        ("A boy slides down a red slide .", ("boy", "slide")),
        ("A man swings a bat", ("man", "bat")),
        ("A child on a tire swing", ("child", "tire swing", "swing")),
        ("Dogs chase a ball while their owner watches .", ("dog", "ball", "owner")),
        ("A woman sits at a dining table", ("woman", "dining table", "table")),
        ("Men wearing clothes and sunglasses ride bikes", ("man", "clothes", "sunglasses", "bike")),
        ("A close up picture of the side of a bus", ("bus",)),
        ("A boy with an ice cream cone", ("boy", "ice cream cone", "cone")),
    ],
)
def test_nouns_are_found_and_verbs_are_not(caption: str, nouns: tuple[str, ...]) -> None:
    assert caption_nouns(caption) == nouns


@pytest.mark.parametrize("caption", ["", " . ", "123 456", "!!!", "running", "🐕🐕"])
def test_a_caption_without_a_noun_gives_none(caption: str) -> None:
    assert caption_nouns(caption) == ()


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("mice", "mouse"),
        ("jeans", "jeans"),
        ("glasses", "glasses"),
        ("clothes", "clothes"),
        ("leaves", "leaf"),
        ("grass", "grass"),
        ("buses", "bus"),
        ("women", "woman"),
    ],
)
def test_singular(plural: str, one: str) -> None:
    assert singular(plural) == one


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80))
def test_any_text_gives_distinct_lower_case_words(caption: str) -> None:
    nouns = caption_nouns(caption)
    assert len(set(nouns)) == len(nouns)
    assert all(noun == noun.lower() and noun not in STOP_NOUNS for noun in nouns)
