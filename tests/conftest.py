"""Fixtures of all tests, and their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import ADDRESS, BODY, HubServer, running_hub

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of evaluation data that lies beside a checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared beside the checkout")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server in place of the model hub, with one file at `ADDRESS`; the hub's library uses it."""
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        # On a busy machine an answer may take longer than the ten seconds after which the library retries.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 120)
        server.put(ADDRESS, BODY)
        yield server


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, and all that start servers or measure time in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            alone = any(f"tests/{folder}/" in path for folder in ("page", "robustness", "browser", "models"))
            return "servers" if alone else path

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests.

    Those of training come first: their files take longest, and two processes then end at about the same time.
    Those in a browser come last: its driver keeps an event loop running that disturbs other tests.
    """
    items.sort(key=lambda item: ("browser" in item.path.parts, "train" not in item.path.parts))
