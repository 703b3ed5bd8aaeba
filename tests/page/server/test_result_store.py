"""What is kept for visitors is bounded in memory, on disk and in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.server.result_store import ResultStore
from ovseg_demo.page.server.uploads import Sweeper, own_folder
from ovseg_demo.settings import Settings
from tests.drawn import box_mask, drawn_result

RESULT = drawn_result(np.zeros((10, 10, 3), np.uint8), ["a"], [(1, box_mask((10, 10), 0, 0, 5, 5))])
SIZE = 10 * 10 * (3 + 2 + 2) + 100


def test_a_result_is_kept_under_a_key_of_its_own() -> None:
    store = ResultStore(Settings())
    keys = [store.put(RESULT) for _ in range(3)]
    assert len(set(keys)) == 3 and all(len(key) > 16 for key in keys)
    assert store.get(keys[0]) is RESULT and store.kept_bytes == 3 * SIZE
    store.drop(keys[0])
    assert store.get(keys[0]) is None and store.get(None) is None and store.get("guessed") is None
    assert store.get(RESULT) is RESULT


def test_the_oldest_make_room() -> None:
    store = ResultStore(Settings(max_visitors=2))
    first, second, third = (store.put(RESULT) for _ in range(3))
    assert store.get(first) is None and store.get(second) and store.get(third)
    narrow = ResultStore(Settings(max_kept_bytes=1))
    narrow.put(RESULT)
    last = narrow.put(RESULT)
    assert narrow.get(last) is RESULT and narrow.kept_bytes == SIZE


def test_a_result_that_was_used_stays_longer() -> None:
    store = ResultStore(Settings(max_visitors=2))
    first, second = (store.put(RESULT, visitor) for visitor in "ab")
    assert store.get(first) is RESULT
    store.put(RESULT, "c")
    assert store.get(first) is RESULT and store.get(second) is None


def test_many_results_of_one_visitor_leave_those_of_others_alone() -> None:
    store = ResultStore(Settings(max_kept_bytes=4 * SIZE))
    others = store.put(RESULT, "other")
    mine = [store.put(RESULT, "me") for _ in range(7)]
    assert store.get(others) is RESULT
    assert [store.get(key) is RESULT for key in mine] == [False] * 5 + [True] * 2


def test_a_visitors_earlier_result_goes_before_anyone_elses_only_one() -> None:
    store = ResultStore(Settings(max_kept_bytes=3 * SIZE))
    others = store.put(RESULT, "other")
    first, second = (store.put(RESULT, "me") for _ in range(2))
    third = store.put(RESULT, "third")
    assert store.get(first) is None
    assert all(store.get(key) is RESULT for key in (others, second, third))


def test_what_is_over_its_lifetime_is_dropped_without_being_asked_for(tmp_path: Path) -> None:
    pool = ModelPool(Settings(state_lifetime_s=1))
    pool.result_store.put(RESULT)
    pool.photos.put("photo", np.zeros(100, np.uint8))
    assert pool.result_store.kept_bytes == SIZE and pool.photos.kept_bytes == 100
    time.sleep(1.1)
    Sweeper(tmp_path, pool.settings, pool.expire).sweep()
    assert pool.result_store.kept_bytes == 0 and pool.photos.kept_bytes == 0


def test_a_result_has_its_lifetime() -> None:
    store = ResultStore(Settings(state_lifetime_s=1))
    key = store.put(RESULT)
    assert store.get(key) is RESULT
    time.sleep(1.1)
    assert store.get(key) is None


def test_files_have_their_lifetime_whatever_their_dates_say(tmp_path: Path) -> None:
    (tmp_path / "example.jpg").write_text("stays")
    sweeper = Sweeper(tmp_path, Settings(state_lifetime_s=1))
    sweeper.start()
    for name, age in (("a/old.jpg", 10**6), ("b/new.jpg", -(10**6))):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("uploaded")
        os.utime(path, (time.time() - age,) * 2)
    sweeper.sweep()
    assert sweeper.stored_bytes == 5 + 8 + 8
    assert (tmp_path / "a/old.jpg").exists()
    deadline = time.monotonic() + 30
    while (tmp_path / "a").exists() or (tmp_path / "b").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    sweeper.stop()
    assert (tmp_path / "example.jpg").exists()


def test_a_server_has_a_folder_of_its_own_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with own_folder() as one, own_folder() as other:
        assert one != other and one.is_relative_to(tmp_path)
        assert os.environ["GRADIO_TEMP_DIR"] == str(other)
        assert one.parent.stat().st_mode & 0o077 == 0
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="no port"), own_folder():
        raise OSError("no port is free")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os; from ovseg_demo.page.server.uploads import own_folder\n"
        "with own_folder() as folder: (folder / 'x').write_text('left'); os._exit(9)"
    )
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[3])
    assert killed.returncode == 9
    (left,) = tmp_path.iterdir()
    (tmp_path / "ovseg-demo-foreign").mkdir()  # no lock: somebody else's, or just being made
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with own_folder():
        assert not left.exists() and (tmp_path / "ovseg-demo-foreign").exists()
