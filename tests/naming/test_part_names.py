"""Parts and their wholes: the shipped table, and which of it a vocabulary asks for."""

from __future__ import annotations

from ovseg_demo.naming.part_names import part_table, parts_of
from ovseg_demo.vocabulary import Vocabulary


def test_a_typed_thing_brings_its_parts() -> None:
    names, wholes = parts_of(Vocabulary.of("sky, puppy | dog, person"))
    assert {"paw", "sleeve", "head"} <= set(names)
    assert wholes[names.index("paw")].tolist() == [False, True, False]
    assert wholes[names.index("head")].tolist() == [False, True, True]
    assert not wholes[:, 0].any()


def test_a_part_that_was_typed_is_left_to_its_own_word() -> None:
    names, _ = parts_of(Vocabulary.of("person, shirt"))
    assert "shirt" not in names
    assert "white shirt" not in names
    assert "trousers" in names


def test_words_without_parts_bring_none() -> None:
    names, wholes = parts_of(Vocabulary.of("sky, sea"))
    assert names == ()
    assert wholes.shape == (0, 2)


def test_no_part_of_the_table_is_its_own_whole() -> None:
    assert all(part not in wholes for part, wholes in part_table().items())
