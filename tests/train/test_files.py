"""A file is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovseg_demo.errors import OutputError
from train.files import write_text, write_whole


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "words.txt"
    for text in ("grüne Wiese\n", "x\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert [p.name for p in path.parent.iterdir()] == ["words.txt"]


def test_a_place_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"x\.json cannot be written .*\.$"):
        write_whole(tmp_path / "taken" / "x.json", b"{}")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
