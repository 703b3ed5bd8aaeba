"""Typed text becomes the classes that are meant."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovseg_demo.errors import VocabularyError
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import PRESETS, Vocabulary, VocabularyClass, fold


def names(text: str) -> tuple[str, ...]:
    return Vocabulary.parse(text).names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog, grass, sky", ("dog", "grass", "sky")),
        ("dog\ngrass\r\nsky", ("dog", "grass", "sky")),
        ("  dog ,, \t wooden   fence\u00a0,\n,", ("dog", "wooden fence")),
        ("犬,猫、鳥", ("犬", "猫", "鳥")),
        ("كلب، قطة", ("كلب", "قطة")),
        ("dog\u2028cat\x85bird", ("dog", "cat", "bird")),
        ("Dog, dog, DOG, cat, Cat", ("Dog", "cat")),
        ("STRASSE, straße", ("STRASSE",)),
        ("caf\u00e9, cafe\u0301", ("caf\u00e9",)),
        ("\uff44\uff4f\uff47, dog", ("\uff44\uff4f\uff47",)),
        ("traffic light, Traffic  Light", ("traffic light",)),
        ("dog; cat；bird", ("dog", "cat", "bird")),
        ("<b>dog</b>, {dog}, ${x}", ("<b>dog</b>", "{dog}", "${x}")),
    ],
)
def test_names_are_split_trimmed_and_taken_once(text: str, expected: tuple[str, ...]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("d\u200bo\ufeffg", "dog"),
        ("do\x00g\x07", "dog"),
        ("\u202edog\u202c", "dog"),
        ("dog\ud800", "dog"),
        ("soft\u00adly", "softly"),
        ("a\u200db", "ab"),
        ("\u3164dog\u2800", "dog"),
    ],
)
def test_characters_nobody_can_see_are_dropped(typed: str, shown: str) -> None:
    assert names(typed) == (shown,)


@pytest.mark.parametrize(
    "name",
    [
        "🐕",
        "👨\u200d👩\u200d👧",  # joined by zero-width joiners that belong there
        "❤\ufe0f",
        "🇩🇪",
        "می\u200cخواهم",  # Persian, with the non-joiner its spelling needs
        "क्\u200dष",
        "כלב",
        "قطة سوداء",
        "Zoë's bike",
        "O'Brien & Söhne (old)",
    ],
)
def test_emoji_and_every_script_stay_as_typed(name: str) -> None:
    assert names(name) == (name,)


def test_emoji_and_text_style_of_one_sign_are_one_name() -> None:
    assert names("❤\ufe0f, ❤") == ("❤\ufe0f",)


def test_synonyms_are_one_class() -> None:
    vocabulary = Vocabulary.parse("sofa | couch|settee , dog")
    assert vocabulary.classes == (
        VocabularyClass("sofa", ("sofa", "couch", "settee")),
        VocabularyClass("dog", ("dog",)),
    )
    assert vocabulary.names == ("sofa", "dog")
    assert vocabulary.prompts == ("sofa", "couch", "settee", "dog")
    assert vocabulary.owners == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("sofa | couch, couch", [("sofa", "couch")]),
        ("couch, sofa | couch", [("couch",), ("sofa",)]),
        ("sofa, sofa | couch", [("sofa", "couch")]),
        ("dog | animal, cat | animal", [("dog", "animal"), ("cat",)]),
        ("sofa | SOFA | | couch |", [("sofa", "couch")]),
        ("| sofa", [("sofa",)]),
        ("|, ||, dog", [("dog",)]),
    ],
)
def test_a_word_belongs_to_the_first_class_that_has_it(text: str, classes: list[tuple[str, ...]]) -> None:
    assert [item.synonyms for item in Vocabulary.parse(text).classes] == classes


@pytest.mark.parametrize("text", ["", "   ", ",,\n,", "\u200b", "|", "\x00", "\ufe0f", "\u0301", "\u3164"])
def test_nothing_to_look_for_says_so(text: str) -> None:
    with pytest.raises(VocabularyError, match="no name"):
        Vocabulary.parse(text)


def test_a_long_name_is_refused_with_its_length() -> None:
    with pytest.raises(VocabularyError, match=r"'xxx.*…' has 10,000 characters and at most 100"):
        Vocabulary.parse("dog, " + "x" * 10_000)
    assert names("x" * 100) == ("x" * 100,)


def test_too_many_names_are_refused_with_their_number() -> None:
    with pytest.raises(VocabularyError, match=r"2,000 different names and at most 1,000"):
        Vocabulary.parse(",".join(f"name {number}" for number in range(2000)))
    with pytest.raises(VocabularyError, match="synonyms included"):
        Vocabulary.parse("a|b|c", max_names=2)
    assert len(Vocabulary.parse(",".join(["dog"] * 5000))) == 1


def test_endless_text_is_refused_before_any_work() -> None:
    with pytest.raises(VocabularyError, match="10,000,000 characters"):
        Vocabulary.parse("," * 10_000_000)


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(max_names=2, max_name_length=3)
    limits = {"max_names": settings.max_names, "max_name_length": settings.max_name_length}
    assert Vocabulary.parse("dog, cat", **limits).names == ("dog", "cat")
    with pytest.raises(VocabularyError):
        Vocabulary.of(["dog", "cat", "cow"], **limits)
    with pytest.raises(VocabularyError):
        Vocabulary.of(["bird"], **limits)
    with pytest.raises(VocabularyError):
        Vocabulary.of(Vocabulary.parse("dog, cat, cow"), **limits)


def test_of_takes_whatever_a_caller_has() -> None:
    expected = Vocabulary.parse("dog, sofa | couch")
    assert Vocabulary.of("dog, sofa | couch") == expected
    assert Vocabulary.of(["dog", "sofa | couch"]) == expected
    assert Vocabulary.of(iter(("dog", " sofa|couch"))) == expected
    assert Vocabulary.of(expected) == expected
    assert Vocabulary.of(["fence, wooden"]).names == ("fence, wooden",)


def test_the_callers_list_is_not_changed() -> None:
    words = [" dog ", "dog", "cat"]
    Vocabulary.of(words)
    assert words == [" dog ", "dog", "cat"]


@pytest.mark.parametrize("wrong", [None, 5, [1], ["dog", None], b"dog", [b"dog"]])
def test_what_is_not_text_is_refused(wrong: object) -> None:
    with pytest.raises(VocabularyError, match="text"):
        Vocabulary.of(wrong)  # type: ignore[arg-type]


TRICKY = st.text(
    st.one_of(
        st.characters(codec=None),
        st.sampled_from(' ,|"\n\u037e\u200b\u200c\u200d\ufe0f\u0301\u3164\ud800\uff0cßİıſ\u212a\u1e9e👨👩'),
    ),
    max_size=60,
)


def parse_or_none(text: str) -> Vocabulary | None:
    try:
        return Vocabulary.parse(text)
    except VocabularyError as refusal:
        assert str(refusal).endswith(".")
        assert str(refusal).isprintable()
        return None


@given(TRICKY)
def test_any_text_gives_clean_distinct_names_or_one_sentence(text: str) -> None:
    vocabulary = parse_or_none(text)
    if vocabulary is None:
        return
    folded = [fold(word) for word in vocabulary.prompts]
    assert len(set(folded)) == len(folded)
    assert all(folded)
    for word in vocabulary.prompts:
        assert word == " ".join(word.split())
        assert word.encode("utf-8")
        assert not {unicodedata.category(char) for char in word} & {"Cc", "Cs"}
        assert not re.search("[|\n]", word)
    for word, owner in zip(vocabulary.prompts, vocabulary.owners, strict=True):
        assert word in vocabulary.classes[owner].synonyms
    assert all(item.synonyms[0] == item.name for item in vocabulary)


@given(TRICKY)
def test_a_vocabulary_written_out_and_read_again_is_the_same(text: str) -> None:
    vocabulary = parse_or_none(text)
    if vocabulary is not None:
        assert all(item.text in vocabulary.text for item in vocabulary)
        assert Vocabulary.parse(vocabulary.text) == vocabulary
        assert Vocabulary.of(vocabulary) == vocabulary


@given(st.lists(TRICKY, min_size=1, max_size=5))
@example(["fence, wooden", "sky"])
def test_names_of_a_list_are_written_out_and_read_again_with_their_commas(words: list[str]) -> None:
    try:
        vocabulary = Vocabulary.of(words)
    except VocabularyError:
        return
    assert Vocabulary.parse(vocabulary.text) == vocabulary


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ('"fence, wooden", sky', ("fence, wooden", "sky")),
        (' "fence, wooden" \nsky', ("fence, wooden", "sky")),
        ('"dog"', ("dog",)),
        ('12" pipe, 5" pipe', ('12" pipe', '5" pipe')),
        ('"12"" pipe, black"', ('12" pipe, black',)),
        ('"open, end', ('"open', "end")),
        ('"one" two, three', ('"one" two', "three")),
        ('"line\nbreak"', ('"line', 'break"')),
    ],
)
def test_a_name_in_quotes_keeps_its_commas(typed: str, expected: tuple[str, ...]) -> None:
    assert names(typed) == expected


def test_quoted_names_have_synonyms_too() -> None:
    (item,) = Vocabulary.parse('"New York, NY" | NYC | "Apple, Big"').classes
    assert item.synonyms == ("New York, NY", "NYC", "Apple, Big")
    assert item.text == '"New York, NY" | NYC | "Apple, Big"'


@pytest.mark.parametrize("piece", ['"a,', '"', ',"""x', ',""x', '""', '"a,a', " " * 50 + '"'])
def test_quotes_that_are_never_closed_take_no_time(piece: str) -> None:
    started = time.perf_counter()
    parse_or_none('"' + piece * (90_000 // len(piece)))
    assert time.perf_counter() - started < 5


@given(st.lists(st.sampled_from(["dog", "Dog", "cat", " CAT", "bird", "ＢＩＲＤ"]), min_size=1))
def test_order_is_that_of_first_mention(words: list[str]) -> None:
    expected = list(dict.fromkeys(fold(word) for word in words))
    assert [fold(name) for name in names(",".join(words))] == expected


@given(st.text(st.characters(codec=None), max_size=40))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(max_size=40))
def test_case_and_composition_fold_away(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(text)
    assert fold(f"  {text} ") == fold(text)


@pytest.mark.parametrize("key", PRESETS)
def test_a_preset_has_as_many_classes_as_it_says(key: str) -> None:
    preset = PRESETS[key]
    vocabulary = Vocabulary.preset(key)
    assert len(vocabulary) == preset.count
    assert str(preset.count) in key
    assert str(preset.count) in preset.title


@pytest.mark.parametrize("key", PRESETS)
def test_no_word_of_a_preset_is_claimed_twice(key: str) -> None:
    folder = Path(__file__).resolve().parent.parent / "ovseg_demo" / "presets"
    lines = (folder / f"{key}.txt").read_text(encoding="utf-8").splitlines()
    words = [word.strip() for line in lines if not line.startswith("#") for word in line.split("|")]
    assert list(Vocabulary.preset(key).prompts) == words


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("voc-20", {0: "aeroplane", 10: "dining table", 14: "person", 19: "tv monitor"}),
        ("context-59", {0: "aeroplane", 29: "ground", 39: "potted plant", 58: "wood"}),
        ("ade20k-150", {0: "wall", 12: "person", 21: "water", 149: "flag"}),
        ("cityscapes-19", {0: "road", 10: "sky", 11: "person", 18: "bicycle"}),
    ],
)
def test_presets_keep_the_benchmarks_order(key: str, known: dict[int, str]) -> None:
    vocabulary = Vocabulary.preset(key)
    assert {index: vocabulary.names[index] for index in known} == known


def test_the_coco_preset_is_the_official_list(shared: Path) -> None:
    official = json.loads((shared / "coco_subset" / "panoptic_coco_categories.json").read_text())
    for category, ours in zip(official, Vocabulary.preset("coco-133").classes, strict=True):
        words = sorted(set(re.split("[- ]", category["name"])) - {"merged", "other", "stuff"})
        spelled = [sorted(word.replace("playing field", "playingfield").split()) for word in ours.synonyms]
        assert words in spelled, category["name"]


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(VocabularyError, match=r"'lvis'.*voc-20.*cityscapes-19"):
        Vocabulary.preset("lvis")
