"""Every example has a photo that can be read, words that can be used, and someone to thank."""

from __future__ import annotations

import pytest

from ovseg_demo.imaging import load_image
from ovseg_demo.page.examples import FOLDER, Example, load_examples
from ovseg_demo.vocabulary import Vocabulary

EXAMPLES = load_examples()


def test_there_are_at_least_eight_and_they_are_small() -> None:
    assert len(EXAMPLES) >= 8
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) < 3_000_000


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.photo.stem)
def test_an_example_can_be_used_and_is_attributed(example: Example) -> None:
    assert max(load_image(example.photo).shape) <= 1024
    assert len(Vocabulary.parse(example.words)) >= 4
    assert f"| `{example.photo.name}` |" in (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_no_photo_lies_there_without_attribution() -> None:
    listed = {example.photo.name for example in EXAMPLES}
    assert {path.name for path in FOLDER.glob("*.jpg")} == listed


def test_without_the_folder_there_are_no_examples(tmp_path: object) -> None:
    from pathlib import Path

    assert load_examples(Path(str(tmp_path)) / "none") == ()
