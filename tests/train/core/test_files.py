"""A file is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg_demo.errors import OutputError
from train.core.files import write_bytes, write_tensors, write_text


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "words.txt"
    for text in ("grüne Wiese\n", "x\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert [p.name for p in path.parent.iterdir()] == ["words.txt"]


def test_tensors_are_written_with_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.safetensors"
    write_tensors(path, {"x": torch.arange(3.0)})
    assert load_file(path)["x"].tolist() == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["numbers.safetensors"]


def test_a_place_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"x\.json cannot be written .*\.$"):
        write_bytes(tmp_path / "taken" / "x.json", b"{}")
    with pytest.raises(OutputError, match=r"x\.safetensors cannot be written .*\.$"):
        write_tensors(tmp_path / "taken" / "x.safetensors", {"x": torch.zeros(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
