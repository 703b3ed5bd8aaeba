"""Weights that are not here come in with a sentence that says how far, and stop when nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ovseg_demo.errors import DownloadError
from ovseg_demo.models import rows
from ovseg_demo.page import model_downloads
from ovseg_demo.page.model_downloads import fetch_missing, models_with_sizes
from tests.hub_server import PINNED, HubServer, table

TINY = table(PINNED)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVSEG_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(model_downloads, "_POLL_INTERVAL_S", 0.02)


def fetched() -> Iterator[tuple[str, float]]:
    return fetch_missing("tiny", ("adapted",), "mobile-sam", TINY)


def present() -> tuple[str, ...]:
    return rows(models=TINY)[0].present


def test_a_download_is_told_and_happens_once(hub: HubServer) -> None:
    hub.slowness_s = 0.3
    told = list(fetched())
    assert told and all(sentence.startswith("Downloading tiny: ") for sentence, _ in told)
    assert all(0 <= share <= 1 for _, share in told)
    assert len(hub.downloads()) == 1 and "adapted" in present()
    assert list(fetched()) == []
    assert len(hub.downloads()) == 1


def test_the_cache_of_the_settings_is_the_one(hub: HubServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    list(fetch_missing("tiny", ("adapted",), "mobile-sam", TINY, other))
    assert present() == ()
    assert "adapted" in rows(cache_dir=other, models=TINY)[0].present


def test_whoever_leaves_stops_the_download(hub: HubServer) -> None:
    hub.slowness_s = 0.3
    steps = fetched()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert present() == ()
    # The next one has it all the same.
    assert list(fetched())
    assert "adapted" in present()


def test_what_cannot_be_had_is_one_sentence(hub: HubServer) -> None:
    hub.status = 503
    with pytest.raises(DownloadError, match=r"^tiny \(1 MB\) is not on this machine"):
        list(fetched())


def test_what_is_here_needs_no_download() -> None:
    assert list(fetch_missing("ovseg-mini", ("vanilla", "adapted"), "mobile-sam")) == []
    assert models_with_sizes("ovseg-mini", "mobile-sam").count(" MB)") == 2
