"""Help with words never loses what was typed."""

from __future__ import annotations

import pytest

from ovseg_demo.page.suggestions import add_word, distractors, preset_text
from ovseg_demo.vocabulary import PRESETS, Vocabulary


@pytest.mark.parametrize("key", PRESETS)
def test_a_preset_is_typed_text_of_the_same_classes(key: str) -> None:
    assert Vocabulary.parse(preset_text(key)) == Vocabulary.preset(key)


@pytest.mark.parametrize(
    ("words", "after"),
    [
        ("", "cat"),
        ("dog", "dog, cat"),
        ("dog, ", "dog, cat"),
        ("dog\ncow", "dog\ncow, cat"),
        ("dog, Cat", "dog, Cat"),
        ("dog, puma | cat", "dog, puma | cat"),
    ],
)
def test_a_word_is_added_once_at_the_end(words: str, after: str) -> None:
    assert add_word(words, "cat") == after


def test_distractors_are_new_known_words_and_the_same_each_time() -> None:
    words = "dog, grass, zebra"
    more = distractors(words)
    assert more == distractors(words)
    assert more.startswith(words)
    added = Vocabulary.parse(more).names[3:]
    assert len(added) == len(set(added)) == 5
    assert set(added) <= set(Vocabulary.preset("coco-133").names)


def test_distractors_of_a_list_that_has_them_all_add_nothing() -> None:
    everything = preset_text("coco-133")
    assert distractors(everything) == everything
