"""The vocabulary of a request: typed words as a list of classes.

`dog, grass, sofa | couch` gives three classes; the last has two synonyms that score as one. Names stay as
typed except for blanks and invisible characters. `fold` compares them: `Dog` and `dog` are one name.
A name with a comma or semicolon stands in double quotes, as in CSV: `"fence, wooden", sky` gives two classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from ovseg_demo.errors import VocabularyError, quoted
from ovseg_demo.settings import Settings

__all__ = ["PRESETS", "Preset", "Vocabulary", "VocabularyClass", "clean_name", "fold"]

# Line breaks of every script and system, and the commas of the scripts that have their own: full-width,
# ideographic and their small and half-width forms, Arabic, N'Ko, Ethiopic, Mongolian, reversed; semicolons,
# the last of which is the Greek question mark, which Unicode takes for one.
_SEPARATORS = re.compile(
    "[;\uff1b\u061b\u037e\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    ",\uff0c\u3001\ufe50\ufe51\uff64\u060c\u07f8\u1363\u1802\u2e41]"
)
_SYNONYM_BAR = re.compile("[|\uff5c]")
_LINE_BREAKS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# What ends a word, inside a character class.
_ENDS = f"{_SEPARATORS.pattern[1:-1]}{_SYNONYM_BAR.pattern[1:-1]}"
# One word up to what ends it. A quote that is not closed right before that is part of the name.
_TYPED_WORD = re.compile(
    rf'\s*"(?P<quoted>(?:[^"{_LINE_BREAKS}{_SYNONYM_BAR.pattern[1:-1]}]|"")+)"\s*(?=[{_ENDS}]|\Z)'
    rf"|(?P<plain>[^{_ENDS}]*)"
)

# Letters that draw nothing (Hangul fillers, the Braille blank) count as blanks.
_BLANK_LETTERS = dict.fromkeys(map(ord, "\u115f\u1160\u3164\uffa0\u2800"), " ")

# Zero-width (non-)joiners belong inside emoji, Persian or Hindi words; anywhere else they are removed.
_JOINERS = "\u200c\u200d"
_JOINED = f"[^\\x00-\\x7f\\s{_JOINERS}]"
_JOINER_RUN = re.compile(f"(?<={_JOINED})([{_JOINERS}])[{_JOINERS}]*(?={_JOINED})|[{_JOINERS}]+")

# Characters that make no visible difference between two spellings of a name: joiners, variation selectors
# (text or emoji style of one sign), the combining grapheme joiner.
_IGNORED_IN_FOLD = re.compile(f"[{_JOINERS}\u034f\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@dataclass(frozen=True)
class VocabularyClass:
    """One class: the name that is shown, and every word that stands for it."""

    name: str
    synonyms: tuple[str, ...]
    """All words of the class, `name` first."""

    @property
    def text(self) -> str:
        """The class as a person would type it: synonyms between bars, quotes around a name with a comma."""
        return " | ".join(map(_quoted_name, self.synonyms))


@dataclass(frozen=True)
class Preset:
    """A published class list that ships with the demo."""

    key: str
    title: str
    """What a person sees in the menu."""

    source: str
    """Where the names and their order come from."""

    count: int


PRESETS: dict[str, Preset] = {
    preset.key: preset
    for preset in (
        Preset("voc-20", "Pascal VOC, 20 things", "PASCAL VOC 2012 without background", 20),
        Preset("context-59", "Pascal Context, 59 classes", "PASCAL-Context, its 59 frequent classes", 59),
        Preset("coco-133", "COCO panoptic, 133 classes", "COCO panoptic, 80 things and 53 stuffs", 133),
        Preset("ade20k-150", "ADE20K, 150 classes", "ADE20K scene parsing benchmark (SceneParse150)", 150),
        Preset("cityscapes-19", "Cityscapes, 19 classes", "Cityscapes, the 19 classes of the benchmark", 19),
    )
}


@dataclass(frozen=True)
class Vocabulary:
    """The classes of one request in the order of typing; made by `of`, `parse` or `preset`."""

    classes: tuple[VocabularyClass, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[VocabularyClass]:
        return iter(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The shown name of each class."""
        return tuple(item.name for item in self.classes)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """Every word of every class, class by class: what is embedded."""
        return tuple(word for item in self.classes for word in item.synonyms)

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """For each of `prompts`, the index of its class in `classes`."""
        return tuple(index for index, item in enumerate(self.classes) for _ in item.synonyms)

    @cached_property
    def text(self) -> str:
        """The vocabulary as a person would type it, one class a line."""
        return "\n".join(item.text for item in self.classes)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        max_names: int = Settings.max_names,
        max_name_length: int = Settings.max_name_length,
    ) -> Vocabulary:
        """The classes in `text`: names between commas or line breaks, synonyms between bars.

        A name in double quotes keeps its commas; two quotes in it stand for one.

        Names are trimmed, runs of blanks become one, and characters that cannot be seen are dropped;
        right-to-left names and emoji stay. Repeated names (without case, after Unicode's compatibility
        folding) count once, at their first place. A word belongs to the first class that has it; an entry
        whose first word is taken adds its new words to that class.

        >>> Vocabulary.parse("dog,  Sofa | couch, DOG").names
        ('dog', 'Sofa')
        >>> Vocabulary.parse('"fence, wooden", sky').names
        ('fence, wooden', 'sky')

        Args:
            text: what was typed.
            max_names: most names, synonyms included.
            max_name_length: most characters in one name.

        Raises:
            VocabularyError: there is no name, a name is too long, or there are too many.
        """
        if not isinstance(text, str):
            raise VocabularyError(_not_text(text))
        # Bounds the work on text that is too long for any vocabulary within the limits.
        longest = max(100_000, max_names * (max_name_length + 10))
        if len(text) > longest:
            raise VocabularyError(
                f"The words have {len(text):,} characters and at most {longest:,} are read; type fewer."
            )
        return cls._collect(_entries(text), max_names, max_name_length)

    @classmethod
    def of(
        cls,
        names: Iterable[str] | str | Vocabulary,
        *,
        max_names: int = Settings.max_names,
        max_name_length: int = Settings.max_name_length,
    ) -> Vocabulary:
        """Make a vocabulary from text as in `parse`, a list of names, or another vocabulary.

        Each item of a list is one class: commas in it are part of the name, bars separate synonyms.

        Raises:
            VocabularyError: as `parse`, or an item is not text.
        """
        if isinstance(names, str):
            return cls.parse(names, max_names=max_names, max_name_length=max_name_length)
        if isinstance(names, Vocabulary):
            names = [" | ".join(item.synonyms) for item in names.classes]
        if not isinstance(names, Iterable):
            raise VocabularyError(_not_text(names))
        return cls._collect(names, max_names, max_name_length)

    @classmethod
    def preset(cls, key: str) -> Vocabulary:
        """The published class list `key` of `PRESETS`.

        Raises:
            VocabularyError: there is no such list.
        """
        if key not in PRESETS:
            raise VocabularyError(f"There is no preset {quoted(key)}; choose one of {', '.join(PRESETS)}.")
        text = files("ovseg_demo").joinpath("presets", f"{key}.txt").read_text(encoding="utf-8")
        return cls.of(line for line in text.splitlines() if not line.startswith("#"))

    @classmethod
    def _collect(cls, entries: Iterable[str], max_names: int, max_name_length: int) -> Vocabulary:
        classes: list[list[str]] = []
        owner_of: dict[str, int] = {}
        for entry in entries:
            if not isinstance(entry, str):
                raise VocabularyError(f"{quoted(entry)} is of type {type(entry).__name__}; a name is text.")
            words = [word for part in _SYNONYM_BAR.split(entry) if (word := clean_name(part))]
            if not words:
                continue
            owner = owner_of.get(fold(words[0]))
            for word in words:
                _check_length(word, max_name_length)
                key = fold(word)
                if key in owner_of:
                    continue
                if owner is None:
                    owner = len(classes)
                    classes.append([])
                owner_of[key] = owner
                classes[owner].append(word)
        if not classes:
            raise VocabularyError("There is no name to look for; type one or more, such as: dog, sky.")
        if len(owner_of) > max_names:
            raise VocabularyError(
                f"There are {len(owner_of):,} different names and at most {max_names:,} are allowed, "
                "synonyms included; leave some out."
            )
        return cls(tuple(VocabularyClass(words[0], tuple(words)) for words in classes))


def fold(name: str) -> str:
    """The form of a name that is compared: without case, NFKC-normalised, runs of blanks made one.

    Names with the same folded form are one name in vocabularies, colours and caches.

    >>> fold(" Wooden  FENCE") == fold("wooden fence")
    True
    """
    # The order of Unicode's "compatibility caseless match" (definition D146).
    text = _IGNORED_IN_FOLD.sub("", name)
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _entries(text: str) -> Iterator[str]:
    """The classes of a text, their synonyms between bars, names without their quotes."""
    words: list[str] = []
    position = 0
    while True:
        found = _TYPED_WORD.match(text, position)
        assert found is not None, "the second half of the pattern takes anything"
        words.append(found["plain"] if found["quoted"] is None else found["quoted"].replace('""', '"'))
        position = found.end() + 1
        ended = found.end() == len(text)
        if ended or not _SYNONYM_BAR.fullmatch(text[found.end()]):
            yield " | ".join(words)
            words = []
        if ended:
            return


def _quoted_name(name: str) -> str:
    """The name, in quotes if it would be read otherwise without them."""
    if not _SEPARATORS.search(name) and not name.startswith('"'):
        return name
    return '"' + name.replace('"', '""') + '"'


def clean_name(part: str) -> str:
    """`part` as it is shown: composed (NFC), trimmed, nothing invisible in it; empty if nothing shows."""
    text = unicodedata.normalize("NFC", part.translate(_BLANK_LETTERS))
    text = "".join(" " if char.isspace() else char for char in text if char.isspace() or _is_kept(char))
    text = " ".join(_JOINER_RUN.sub(r"\1", text).split())
    text = unicodedata.normalize("NFC", text)
    # Combining marks need another character; alone they are not a name.
    return text if any(unicodedata.category(char)[0] not in "MZC" for char in text) else ""


def _is_kept(char: str) -> bool:
    """False for control, direction and other invisible characters and for lone surrogates."""
    if char in _JOINERS:
        return True
    if unicodedata.category(char) in ("Cc", "Cf", "Cs"):
        return False
    code = ord(char)
    return not (code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF)  # Unicode's noncharacters


def _check_length(word: str, limit: int) -> None:
    if len(word) > limit:
        raise VocabularyError(
            f"The name {quoted(word, 30)} has {len(word):,} characters and at most {limit:,} are allowed; "
            "shorten it."
        )


def _not_text(value: object) -> str:
    return f"The words are of type {type(value).__name__}; give text or a list of names."
