"""What happens before the first photo: weights come in, with a sentence that says which and how far."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ovseg_demo.errors import OvsegError
from ovseg_demo.models import ARMS, MODELS, ModelEntry, ModelRow, resolve, rows
from ovseg_demo.models.hub import HubFile
from ovseg_demo.result import Arm

__all__ = ["fetch_missing", "models_with_sizes"]

_POLL_INTERVAL_S = 0.25


class _CancelledError(OvsegError):
    """The client that waited for the download has left."""


def models_with_sizes(model: str, proposer: str, cache_dir: Path | None = None) -> str:
    """The models and their sizes, for people: "ovseg-mini (70 MB) and mobile-sam (41 MB)"."""
    sizes = {row.name: row.size_bytes for row in rows(cache_dir=cache_dir)}
    return " and ".join(
        f"{name} ({sizes[name] / 1e6:,.0f} MB)" if sizes.get(name) else name for name in (model, proposer)
    )


def fetch_missing(
    model: str,
    arms: tuple[Arm, ...],
    proposer: str,
    models: Mapping[str, ModelEntry] = MODELS,
    cache_dir: Path | None = None,
) -> Iterator[tuple[str, float]]:
    """Downloads the weights that are not on this machine; yields a sentence and the share done.

    Closing the iterator stops the download, which goes on from there the next time.

    Raises:
        DownloadError: the weights cannot be had; says how to get them.
    """
    here: dict[str, ModelRow] = {row.name: row for row in rows(cache_dir=cache_dir, models=models)}
    wanted: list[tuple[str, Arm | None, str]] = [(model, arm, ARMS[arm].file) for arm in arms]
    wanted.append((proposer, None, "weights"))
    for name, arm, part in wanted:
        entry = models.get(name)
        if entry and isinstance(entry.sources.get(part), HubFile) and part not in here[name].present:
            for done, total in _download(name, arm, models, cache_dir):
                share = done / total if total else 0.0
                yield f"Downloading {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", share


def _download(
    name: str, arm: Arm | None, models: Mapping[str, ModelEntry], cache_dir: Path | None
) -> Iterator[tuple[int, int]]:
    left = threading.Event()
    state = (0, 0)

    def report(done: int, total: int) -> None:
        nonlocal state
        state = (done, total)
        if left.is_set():
            raise _CancelledError("The download was stopped.")

    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(resolve, name, arm, cache_dir=cache_dir, progress=report, models=models)
        try:
            while not wait([work], timeout=_POLL_INTERVAL_S).done:
                yield state
            work.result()
        finally:
            left.set()
