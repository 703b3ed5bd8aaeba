"""Colours belong to names, and stay apart for every kind of eye."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovseg_demo.output.palette import HUES, assign_colours
from ovseg_demo.vocabulary import PRESETS, Vocabulary, fold

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB becomes for a dichromat.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
LEAST_DISTANCE = {"normal": 25.0, "protanopia": 12.0, "deuteranopia": 12.0, "tritanopia": 15.0}


def to_lab(rgb: NDArray[np.float64], vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB 0..255, as an eye of this vision sees it, in CIELAB (D65)."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1)
    matrix = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]])
    xyz = seen @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_hues_stay_apart(vision: str) -> None:
    lab = to_lab(np.array(HUES, dtype=np.float64), VISIONS[vision])
    least = min(float(np.linalg.norm(lab[a] - lab[b])) for a, b in combinations(range(len(HUES)), 2))
    assert len(HUES) == 24
    assert least >= LEAST_DISTANCE[vision]


def test_hues_are_colours_neither_near_black_nor_near_white() -> None:
    lab = to_lab(np.array(HUES, dtype=np.float64), VISIONS["normal"])
    assert lab[:, 0].min() > 35
    assert lab[:, 0].max() < 88
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 29


def test_a_name_has_one_colour_in_every_vocabulary_where_its_hue_is_free() -> None:
    alone = assign_colours(["grass"])[0]
    assert alone in HUES
    assert assign_colours(["dog", "grass"])[1] == alone
    assert assign_colours(["  GRASS"])[0] == alone


def test_what_people_expect_to_be_green_or_blue_is() -> None:
    for name, channel in (("grass", 1), ("trees", 1), ("Sky", 2), ("lake", 2)):
        colour = assign_colours([name])[0]
        assert max(colour) == colour[channel]
    # Nobody takes it from them.
    crowd = [f"word {number}" for number in range(200)]
    assert assign_colours([*crowd, "grass"])[-1] == assign_colours(["grass"])[0]


def test_colours_are_the_same_in_another_process() -> None:
    names = ["grass", "dog", "wooden fence", "sky", "犬"]
    code = f"from ovseg_demo.output.palette import assign_colours; print(assign_colours({names!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout.strip() == repr(assign_colours(names))


def test_a_name_whose_hue_is_taken_gets_the_next_free_one() -> None:
    by_hue: dict[tuple[int, int, int], list[str]] = {}
    for number in range(200):
        by_hue.setdefault(assign_colours([f"word {number}"])[0], []).append(f"word {number}")
    hue, (first, second, *_) = next((hue, names) for hue, names in by_hue.items() if len(names) > 1)
    colours = set(assign_colours([first, second]))
    following = HUES[(HUES.index(hue) + 1) % len(HUES)]
    assert colours == {hue, following}


def test_the_order_of_the_words_does_not_matter() -> None:
    names = Vocabulary.preset("ade20k-150").names
    forward = dict(zip(names, assign_colours(names), strict=True))
    backward = dict(zip(names[::-1], assign_colours(names[::-1]), strict=True))
    assert forward == backward


@pytest.mark.parametrize("key", PRESETS)
def test_presets_have_distinct_colours(key: str) -> None:
    names = Vocabulary.preset(key).names
    assert len(set(assign_colours(names))) == len(names)


def test_the_first_24_names_use_pure_hues_and_1000_are_distinct() -> None:
    names = [f"word {number}" for number in range(1000)]
    assert set(assign_colours(names[:24])) == set(HUES)
    colours = assign_colours(names)
    assert len(set(colours)) == 1000
    assert all(0 <= value <= 255 for colour in colours for value in colour)


@given(st.lists(st.text(max_size=8), max_size=60))
def test_two_names_share_a_colour_exactly_if_they_are_one_name(names: list[str]) -> None:
    colours = assign_colours(names)
    assert len(colours) == len(names)
    for (name_a, colour_a), (name_b, colour_b) in combinations(zip(names, colours, strict=True), 2):
        assert (colour_a == colour_b) == (fold(name_a) == fold(name_b))
