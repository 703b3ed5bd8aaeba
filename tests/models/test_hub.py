"""Weights are downloaded, hashed and refused, with a server in place of the hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ovseg_demo.errors import CheckpointError, DownloadError, OvsegError
from ovseg_demo.models import resolve
from ovseg_demo.models.hub import HubFile, local_folder
from tests.hub_server import ADDRESS, BODY, COMMIT, PINNED, SHA256, HubServer, running_hub, table

ROOT = Path(__file__).resolve().parents[2]


def get(cache: Path, source: HubFile = PINNED, **options: object) -> Path:
    return resolve("tiny", cache_dir=cache, models=table(source), **options).path  # type: ignore[arg-type]


def refusal(cache: Path, source: HubFile = PINNED) -> str:
    with pytest.raises(OvsegError) as caught:
        get(cache, source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def files_of(cache: Path) -> list[str]:
    """Weights and parts of them in the cache; links count as what they show."""
    return sorted(
        path.name for path in (cache / "hub").rglob("*") if path.is_file() and path.stat().st_size > 1000
    )


# --- downloading -----------------------------------------------------------------------------------------


def test_a_model_is_downloaded_once_and_then_found_without_the_hub(tmp_path: Path, hub: HubServer) -> None:
    found = resolve("tiny", cache_dir=tmp_path, models=table(PINNED))
    assert found.path.read_bytes() == BODY
    assert found.sha256 == SHA256
    assert found.entry is not None
    asked = len(hub.requests)
    assert get(tmp_path) == found.path
    assert len(hub.requests) == asked


def test_a_space_and_a_pinned_revision_are_asked_for_as_such(tmp_path: Path, hub: HubServer) -> None:
    hub.put(f"spaces/owner/tiny/resolve/{COMMIT}/deep/weights.bin", b"from a space")
    digest = hashlib.sha256(b"from a space").hexdigest()
    source = HubFile("owner/tiny", "deep/weights.bin", 12, COMMIT, digest, repo_type="space")
    assert get(tmp_path, source).read_bytes() == b"from a space"
    assert get(tmp_path, source).read_bytes() == b"from a space"


def test_no_token_is_sent_to_the_hub(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token")
    get(tmp_path)
    assert hub.authorizations == [""] * len(hub.requests)


def test_progress_is_told_up_to_the_whole_size(tmp_path: Path, hub: HubServer) -> None:
    told: list[tuple[int, int]] = []
    get(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(BODY), len(BODY))
    assert told == sorted(told)


def test_a_download_can_be_stopped_and_leaves_nothing(tmp_path: Path, hub: HubServer) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        get(tmp_path, progress=stop)
    assert files_of(tmp_path) == []
    assert get(tmp_path).read_bytes() == BODY


def test_a_cut_connection_is_taken_up_where_it_broke(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cut costs the last unfinished block, ten megabytes at most; here a megabyte is all there is.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.cuts_left = 2
    assert get(tmp_path).read_bytes() == BODY
    assert hub.downloads() == ["", f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) * 3 // 4}-"]


def test_a_program_killed_during_a_download_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from tests.models.test_hub import get\n"
        f"get(Path({str(tmp_path)!r}), progress=lambda done, total: os._exit(9))"
    )
    with running_hub() as hub:
        hub.put(ADDRESS, BODY)
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint}
        killed = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT)
        assert killed.returncode == 9
        (part,) = (tmp_path / "hub").rglob("*.incomplete")
        os.utime(part, (time.time() - 86_400,) * 2)  # as if that had been yesterday
        code = code.replace("os._exit(9)", "None")
        again = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT)
    assert again.returncode == 0
    assert not part.exists()
    assert set(files_of(tmp_path)) == {SHA256, "weights.bin"}


def test_two_processes_and_their_threads_end_with_one_good_file(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from tests.models.test_hub import BODY, get\n"
        "good = []\n"
        f"work = lambda: good.append(get(Path({str(tmp_path)!r})).read_bytes() == BODY)\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "sys.exit(good != [True] * 3)"
    )
    with running_hub() as hub:
        hub.put(ADDRESS, BODY)
        hub.slowness_s = 0.5
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DOWNLOAD_TIMEOUT": "120"}
        both = [subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT) for _ in range(2)]
        assert [process.wait(timeout=300) for process in both] == [0, 0]
        assert len(hub.downloads()) == 1
    assert set(files_of(tmp_path)) == {SHA256, "weights.bin"}


# --- hashes ----------------------------------------------------------------------------------------------


def test_a_wrong_file_is_refused_and_removed(tmp_path: Path, hub: HubServer) -> None:
    hub.put(ADDRESS, b"x" * len(BODY))
    message = refusal(tmp_path)
    assert re.search(rf"not the published weights.bin and was removed.* instead of {SHA256[:12]}", message)
    assert files_of(tmp_path) == []
    hub.put(ADDRESS, BODY)
    assert get(tmp_path).read_bytes() == BODY


def test_a_damaged_file_in_the_cache_is_fetched_anew(tmp_path: Path, hub: HubServer) -> None:
    blob = get(tmp_path).resolve()
    blob.chmod(0o644)
    blob.write_bytes(BODY[:-1] + b"!")
    assert get(tmp_path).read_bytes() == BODY
    assert len(hub.downloads()) == 2


def test_damaged_records_are_rebuilt(tmp_path: Path, hub: HubServer) -> None:
    get(tmp_path)
    (record,) = (tmp_path / "records").glob("*.json")
    record.write_text("{ not json")
    assert get(tmp_path).read_bytes() == BODY
    assert json.loads(record.read_text())["sha256"] == SHA256


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hub: HubServer) -> None:
    get(tmp_path)
    (record,) = (tmp_path / "records").glob("seen-*.json")
    before = record.stat().st_mtime_ns
    get(tmp_path)
    assert record.stat().st_mtime_ns == before
    blob = get(tmp_path).resolve()
    os.utime(blob, ns=(1, 1))
    get(tmp_path)
    assert json.loads(record.read_text())["mtime_ns"] == 1


# --- without the hub -------------------------------------------------------------------------------------


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_offline_a_missing_model_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    began = time.monotonic()
    message = refusal(tmp_path)
    assert time.monotonic() - began < 20
    assert "tiny (1 MB) is not on this machine and the model hub cannot be reached" in message
    assert "weights.bin of the hub repository owner/tiny" in message
    assert str(tmp_path / "weights" / "tiny") in message
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
def test_a_hub_that_refuses_is_told_with_its_status(tmp_path: Path, hub: HubServer, status: int) -> None:
    hub.status = status
    assert f"status {status}" in refusal(tmp_path)


def test_a_connection_that_always_breaks_has_its_own_message(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cuts_left = 10**6
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.put(ADDRESS, b"xy")  # halves to nothing at once, so that the attempts run out
    assert "connection to the model hub was lost" in refusal(tmp_path)
    assert files_of(tmp_path) == []


def test_a_file_put_there_by_hand_is_used_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    folder = local_folder(tmp_path, "tiny")
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(BODY)
    assert get(tmp_path) == folder / "weights.bin"
    (folder / "weights.bin").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="is not the published file of tiny"):
        get(tmp_path)
    assert (folder / "weights.bin").read_bytes() == b"something else"


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, hub: HubServer) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    assert "OVSEG_CACHE_DIR" in refusal(blocked)


def test_the_cache_other_programs_share_is_read_but_not_written(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = get(tmp_path / "other", PINNED)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other" / "hub"))
    asked = len(hub.requests)
    assert get(tmp_path / "mine", PINNED) == shared
    assert len(hub.requests) == asked
    shared.resolve().chmod(0o644)
    shared.resolve().write_bytes(b"damaged by somebody")
    assert get(tmp_path / "mine", PINNED).read_bytes() == BODY
    assert shared.read_bytes() == b"damaged by somebody"


def test_many_threads_of_one_program_share_one_download(tmp_path: Path, hub: HubServer) -> None:
    hub.slowness_s = 0.2
    results: list[Path | DownloadError] = []
    threads = [threading.Thread(target=lambda: results.append(get(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(results) == 4
    assert len(hub.downloads()) == 1
