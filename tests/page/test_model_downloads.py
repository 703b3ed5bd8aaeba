"""Weights that are not here come in with a sentence that says how far, and stop when nobody waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from ovseg_demo.errors import DownloadError
from ovseg_demo.models import MODELS, rows
from ovseg_demo.models.hub import HubFile
from ovseg_demo.page import model_downloads
from ovseg_demo.page.api import Endpoints
from ovseg_demo.page.handlers import Request, run
from ovseg_demo.page.model_downloads import fetch_missing, models_with_sizes
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings
from tests.hub_server import BODY, PINNED, HubServer, table

TINY = table(PINNED)
COFFEE = Path(__file__).parents[2] / "examples" / "coffee.jpg"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVSEG_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(model_downloads, "_POLL_INTERVAL_S", 0.02)


def fetched() -> Iterator[tuple[str, float]]:
    return fetch_missing("tiny", ("adapted",), "mobile-sam", TINY)


def present() -> tuple[str, ...]:
    return rows(models=TINY)[0].present


def test_a_download_is_reported_and_happens_once(hub: HubServer) -> None:
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


def test_a_client_that_leaves_stops_the_download(hub: HubServer) -> None:
    hub.slowness_s = 0.3
    steps = fetched()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert present() == ()
    # The next one has it all the same.
    assert list(fetched())
    assert "adapted" in present()


def test_a_slow_hub_does_not_hold_a_client_that_leaves(hub: HubServer) -> None:
    hub.slowness_s = 30
    started = time.monotonic()
    steps = fetched()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 25


def test_the_endpoints_hold_a_download_to_the_time_of_a_request(hub: HubServer, tmp_path: Path) -> None:
    source = MODELS["clip-vit-b-16"].sources["vanilla"]
    assert isinstance(source, HubFile)
    hub.put(f"{source.repo}/resolve/{source.revision}/{source.file}", BODY)
    hub.slowness_s = 30
    pool = ModelPool(Settings(timeout_s=1, cache_dir=tmp_path))
    started = time.monotonic()
    with pytest.raises(gr.Error, match="more than 1 seconds"):
        Endpoints(pool).segment(str(COFFEE), "cup", "vanilla", "clip-vit-b-16")
    assert time.monotonic() - started < 25
    assert pool.tracker.health()[0] == 200


def test_visitors_see_no_folder_of_the_server(hub: HubServer, tmp_path: Path) -> None:
    hub.status = 503
    pool = ModelPool(Settings(cache_dir=tmp_path))
    with pytest.raises(gr.Error) as caught:
        Endpoints(pool).segment(str(COFFEE), "cup", "vanilla", "clip-vit-b-16")
    asked = Request(str(COFFEE), "cup", False, "clip-vit-b-16", "mobile-sam", "vild", "default")
    for told in (str(caught.value), str(list(run(asked, pool))[-1].payload["message"])):
        assert str(tmp_path) not in told
        assert "is not on this server and the model hub refused it (status 503); choose another" in told


def test_what_cannot_be_had_is_one_sentence(hub: HubServer) -> None:
    hub.status = 503
    with pytest.raises(DownloadError, match=r"^tiny \(1 MB\) is not on this machine"):
        list(fetched())


def test_what_is_here_needs_no_download() -> None:
    assert list(fetch_missing("ovseg-mini", ("vanilla", "adapted"), "mobile-sam")) == []
    assert models_with_sizes("ovseg-mini", "mobile-sam").count(" MB)") == 2
