"""Free words: what is asked, which names are right where, and the figures of answers known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg_demo.errors import SettingsError
from train.data.named_regions import NamedPhoto, NamedRegion
from train.data.sources import Photo
from train.evaluation.free_words import (
    FreeWordsSettings,
    Truth,
    free_figures,
    make_free_question,
    right_names,
    smallest_named,
    stored_proposals,
)

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 30)


def region(
    window: tuple[slice, slice], names: tuple[str, ...] | None, part_of: tuple[str, ...] = ()
) -> NamedRegion:
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[window] = 1
    return NamedRegion(coco_mask.encode(mask)["counts"].decode(), SIZE, 0.9, names, part_of)


def photo_of(name: str, *regions: NamedRegion) -> NamedPhoto:
    return NamedPhoto(name, 0, SIZE, regions, Photo(Path("nowhere") / name, "coco_subset"))


DOG = photo_of(
    "coco_subset/dog.jpg",
    region((slice(0, 20), slice(0, 30)), ("lawn", "grass")),
    region((slice(5, 15), slice(5, 25)), ("golden retriever", "dog")),
    region((slice(5, 10), slice(5, 10)), ("head",), ("dog",)),
    region((slice(0, 3), slice(0, 4)), ()),
    region((slice(0, 2), slice(0, 2)), None),
)
KITCHEN = photo_of("coco_subset/kitchen.jpg", region((slice(0, 20), slice(0, 30)), ("oven",)))
GARDEN = photo_of("coco_subset/garden.jpg", region((slice(0, 20), slice(0, 30)), ("wild grass",)))


def test_present_names_are_first_names_and_absent_ones_are_of_other_photos() -> None:
    question = make_free_question(DOG, [DOG, KITCHEN, GARDEN], present=10, absent=5, seed=0)
    assert set(question.present) == {"lawn", "golden retriever", "head"}
    assert question.absent == ("oven",)  # "wild grass" ends in a word that is right here
    assert question == make_free_question(DOG, [DOG, KITCHEN, GARDEN], present=10, absent=5, seed=0)
    assert len(make_free_question(DOG, [DOG], present=2, absent=5, seed=0).asked) == 2


def test_a_part_is_right_by_its_own_names_and_by_all_of_its_whole() -> None:
    names = right_names(DOG, stored_proposals(DOG).masks)
    assert names[2] == {"head", "dog", "golden retriever"}
    assert names[1] == {"dog", "golden retriever"}
    assert names[3] == names[4] == frozenset()


def test_the_smallest_named_region_decides_a_pixel() -> None:
    smallest = smallest_named(DOG, stored_proposals(DOG).masks)
    assert smallest[0, 0] == 1  # under an unclear and an unnamed region
    assert smallest[6, 6] == 3
    assert smallest[12, 20] == 2


def test_pixels_for_which_nothing_typed_is_right_do_not_count() -> None:
    masks = stored_proposals(DOG).masks
    truth = Truth.of(DOG, masks, ("dog", "oven"))
    everything_dog = np.ones(SIZE, dtype=np.uint16)
    dog = int(masks[1].sum())
    assert truth.count(everything_dog) == [dog, dog, 600 - dog, 600 - dog]
    assert truth.count(np.zeros(SIZE, dtype=np.uint16)) == [0, dog, 0, 600 - dog]
    assert truth.count(everything_dog * 2)[0] == 0


def test_figures_are_shares_of_photos_pixels_and_words() -> None:
    counts = np.array([[75, 100, 5, 50, 2, 3, 5, 5], [74, 100, 0, 0, 1, 3, 3, 5], [0, 0, 10, 10, 0, 0, 0, 0]])
    figures = free_figures(counts, draws=50, seed=0)
    assert figures["sensible"].value == pytest.approx(50)
    assert figures["pixels_right"].value == pytest.approx(74.5)
    assert figures["present_found"].value == pytest.approx(50)
    assert figures["absent_not_found"].value == pytest.approx(80)
    assert figures["strays"].value == pytest.approx(25)
    low, high = figures["sensible"].interval
    assert low <= 50 <= high


def test_a_photo_must_be_asked_for_something_that_is_there() -> None:
    with pytest.raises(SettingsError, match="--present 0"):
        FreeWordsSettings(present=0)
