"""Every example has a photo that can be read, words that can be used, and someone to thank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import box_mask, drawn_result
from PIL import Image

from ovseg_demo.imaging import load_image
from ovseg_demo.page.example_results import example_result, result_bytes, result_file
from ovseg_demo.page.examples import FOLDER, Example, load_examples
from ovseg_demo.result import compare
from ovseg_demo.vocabulary import Vocabulary

EXAMPLES = load_examples()


def test_there_are_at_least_eight_and_they_are_small() -> None:
    assert len(EXAMPLES) >= 8
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) < 4_000_000


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.photo.stem)
def test_an_example_can_be_used_and_is_attributed(example: Example) -> None:
    assert max(load_image(example.photo).shape) <= 1024
    assert len(Vocabulary.parse(example.words)) >= 4
    author, licence = example.credit.rsplit(", ", 1)
    attribution = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    (row,) = (line for line in attribution.splitlines() if line.startswith(f"| `{example.photo.name}` |"))
    assert all(word in row for word in author.replace(",", "").split()) and licence in row
    assert example.title and example.shows


def test_a_result_that_is_read_back_is_written_the_same(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(photo)
    pixels = load_image(photo)
    arms = [
        drawn_result(pixels, ["cup", "fork"], [(index, box_mask((30, 40), 5, 5, 20, 20))], arm=arm)
        for arm, index in (("vanilla", 1), ("adapted", 2))
    ]
    result = compare(*arms)
    example = Example(photo, "Grey", "cup, fork", "nothing", "nobody, none")
    result_file(example).parent.mkdir()
    result_file(example).write_bytes(result_bytes(result, example.words))
    ready = example_result(example)
    assert ready is not None
    for mine, theirs in ((ready.result.first, result.first), (ready.result.second, result.second)):
        assert mine.to_json() == theirs.to_json()
        assert np.array_equal(mine.label_map, theirs.label_map)
        assert np.array_equal(mine.region_map, theirs.region_map)
    assert ready.result.verdict == result.verdict
    assert "errs" not in ready.payload["timing"]
    honest = example_result(replace(example, errs="The cup is no fork."))
    assert honest is not None
    assert honest.payload["timing"].endswith("Where it still errs: The cup is no fork.")


def test_one_example_shows_an_honest_failure() -> None:
    told = [example.errs for example in EXAMPLES if example.errs]
    assert told and all(one.endswith(".") for one in told)


def test_a_result_of_other_words_is_not_shown(tmp_path: Path) -> None:
    assert example_result(replace(EXAMPLES[0], words="something else")) is None
    assert example_result(replace(EXAMPLES[0], photo=tmp_path / "none.jpg")) is None


def test_no_photo_lies_there_without_attribution() -> None:
    listed = {example.photo.name for example in EXAMPLES}
    assert {path.name for path in FOLDER.glob("*.jpg")} == listed


def test_without_the_folder_there_are_no_examples(tmp_path: Path) -> None:
    assert load_examples(tmp_path / "none") == ()
