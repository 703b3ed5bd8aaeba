"""Download and load the models of a request, with a sentence that says which and how far."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_demo.errors import OvsegError
from ovseg_demo.files import size_text
from ovseg_demo.models import MODELS, ModelEntry, ModelRow, check_listed, resolve, rows, split_arm
from ovseg_demo.models.hub import HubFile
from ovseg_demo.result import Arm

if TYPE_CHECKING:
    from ovseg_demo.page.server.model_pool import ModelPool, Models
    from ovseg_demo.segmenter import Segmenter

__all__ = ["fetch_missing", "load_models", "models_with_sizes"]

_POLL_INTERVAL_S = 0.25


class _CancelledError(OvsegError):
    """The client that waited for the download has left."""


def models_with_sizes(model: str, proposer: str, cache_dir: Path | None = None) -> str:
    """The models and their sizes as text: "ovseg-mini (70 MB) and mobile-sam (41 MB)"."""
    sizes = {row.name: row.size_bytes for row in rows(cache_dir=cache_dir)}
    return " and ".join(
        f"{name} ({size_text(sizes[name])})" if sizes.get(name) else name for name in (model, proposer)
    )


def load_models(
    pool: ModelPool, models: Models, arms: tuple[Arm, ...]
) -> Generator[tuple[str, float], None, Segmenter]:
    """What a request needs before its photo: weights on this machine, models in memory.

    Args:
        pool: where the models are kept.
        models: which.
        arms: of the CLIP; empty if nothing will be named.

    Yields:
        A sentence and the share done, 0..1. Closing the generator stops a download.

    Returns:
        The segmenter with these arms loaded.

    Raises:
        ModelError: as `Segmenter.from_pretrained`.
    """
    cache_dir = pool.settings.cache_dir
    check_listed(arms, models.model, pool.settings.model)
    yield from fetch_missing(models.model, arms, models.proposer, cache_dir=cache_dir)
    if not pool.has(models):
        yield f"Loading {models_with_sizes(models.model, models.proposer, cache_dir)}, once", 0.0
    segmenter = pool.get(models)
    for arm in arms:
        segmenter.classifier(arm)
    return segmenter


def fetch_missing(
    model: str,
    arms: tuple[Arm, ...],
    proposer: str,
    models: Mapping[str, ModelEntry] = MODELS,
    cache_dir: Path | None = None,
) -> Iterator[tuple[str, float]]:
    """Download the weights that are not on this machine; yields a sentence and the share done.

    Closing the iterator stops the download; the next call resumes it.

    Raises:
        DownloadError: the weights cannot be had; says how to get them.
    """
    of_models = [split_arm(arm, model) for arm in arms]
    wanted: list[tuple[str, Arm | None]] = [*((name, arm) for arm, name in of_models), (proposer, None)]
    asked = {name: models[name] for name, _ in wanted if name in models}
    here: dict[str, ModelRow] = {row.name: row for row in rows(cache_dir=cache_dir, models=asked)}
    for name, arm in wanted:
        entry = models.get(name)
        if entry is None:
            continue
        source = entry.sources.get("weights" if arm is None else entry.part_of(arm))
        if isinstance(source, HubFile) and (arm or "weights") not in here[name].present:
            for done, total in _download(name, arm, models, cache_dir):
                share = done / total if total else 0.0
                yield f"Downloading {name}: {size_text(done)} of {size_text(total)}", share


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

    thread = ThreadPoolExecutor(1)
    try:
        work = thread.submit(resolve, name, arm, cache_dir=cache_dir, progress=report, models=models)
        while not wait([work], timeout=_POLL_INTERVAL_S).done:
            yield state
        work.result()
    finally:
        left.set()
        # A hub that sends nothing blocks this thread alone, until the next bytes come.
        thread.shutdown(wait=False)
