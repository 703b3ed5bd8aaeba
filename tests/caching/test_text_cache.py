"""Text features on disk come back, and errors of the file do not stop a request."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ovseg_demo.caching.text_cache import TextCache


def feature(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(8).astype(np.float32)


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    TextCache(tmp_path).write("model", "vild", {"dog": feature(0), "grüne Wiese": feature(1)})
    found = TextCache(tmp_path).read("model", "vild", ["grüne Wiese", "cat", "dog"])
    assert set(found) == {"dog", "grüne Wiese"}
    np.testing.assert_array_equal(found["grüne Wiese"], feature(1))
    assert found["dog"].dtype == np.float32


def test_another_model_or_other_sentences_have_features_of_their_own(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.write("model", "vild", {"dog": feature(0)})
    assert cache.read("other", "vild", ["dog"]) == {}
    assert cache.read("model", "single", ["dog"]) == {}
    cache.write("other", "vild", {"dog": feature(1)})
    np.testing.assert_array_equal(cache.read("model", "vild", ["dog"])["dog"], feature(0))


def test_a_thousand_names_come_back_at_once(tmp_path: Path) -> None:
    cache, names = TextCache(tmp_path), [f"name {i}" for i in range(1300)]
    cache.write("model", "vild", {name: feature(i) for i, name in enumerate(names)})
    found = cache.read("model", "vild", names)
    assert len(found) == 1300
    np.testing.assert_array_equal(found["name 1299"], feature(1299))


def test_the_words_cannot_be_read_off_the_file(tmp_path: Path) -> None:
    TextCache(tmp_path).write("model", "vild", {"my secret garden": feature(0)})
    (file,) = (path for path in tmp_path.iterdir() if path.is_file())
    assert b"secret" not in file.read_bytes()


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, max_features=10)
    for i in range(25):
        cache.write("model", "vild", {f"name {i}": feature(i)})
    for reader in (cache, TextCache(tmp_path)):
        kept = reader.read("model", "vild", [f"name {i}" for i in range(25)])
        assert 0 < len(kept) <= 10
        assert "name 24" in kept


def test_a_damaged_file_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TextCache(tmp_path).write("model", "vild", {"dog": feature(0)})
    (file,) = tmp_path.iterdir()
    cache = TextCache(tmp_path)
    file.write_bytes(b"this is no database, but it is long enough to be looked at" * 40)
    with caplog.at_level(logging.WARNING):
        assert cache.read("model", "vild", ["dog"]) == {}
    assert "damaged" in caplog.text
    cache.write("model", "vild", {"dog": feature(0)})
    assert set(TextCache(tmp_path).read("model", "vild", ["dog"])) == {"dog"}


def test_a_folder_that_cannot_be_made_costs_a_remark_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TextCache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        cache.write("model", "vild", {"dog": feature(0)})
    assert "not kept" in caplog.text
    assert set(cache.read("model", "vild", ["dog"])) == {"dog"}
    assert TextCache(tmp_path / "file" / "cache").read("model", "vild", ["dog"]) == {}


def test_a_folder_whose_name_no_system_takes_costs_a_remark_only(tmp_path: Path) -> None:
    cache = TextCache(tmp_path / ("x" * 300))
    assert cache.read("model", "vild", ["a"]) == {}
    cache.write("model", "vild", {"a": np.ones(2, np.float32)})
    assert set(cache.read("model", "vild", ["a"])) == {"a"}


def test_without_a_folder_features_are_kept_in_memory() -> None:
    cache = TextCache(None)
    cache.write("model", "vild", {"dog": feature(0)})
    assert set(cache.read("model", "vild", ["dog", "cat"])) == {"dog"}
    assert TextCache(None).read("model", "vild", ["dog"]) == {}
