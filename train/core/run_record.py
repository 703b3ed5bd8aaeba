"""Records of training runs, kept beside the weights and shown on the model card."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ovseg_demo import __version__
from train.core.files import write_bytes
from train.core.options import command_line
from train.data.shards import read_manifest

RECORD = "run.json"


class RunSettings(Protocol):
    """The settings of a run, a frozen dataclass."""

    @property
    def pairs(self) -> tuple[Path, ...]:
        """Folders of pairs."""

    @property
    def out(self) -> Path:
        """The run's folder."""

    @property
    def model(self) -> str:
        """The vanilla model."""

    @property
    def start(self) -> Path | None:
        """Adapted weights that the run went on from."""


def write_record(settings: RunSettings, *, prog: str, sha256: str) -> None:
    """Write `run.json` into the run's folder: command, every number, the pairs, and the runs before it.

    Args:
        settings: as they were given, filled in by the recipe.
        prog: the module that runs.
        sha256: of the weights that the run started from.
    """
    numbers = {
        field.name: _plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]
        if field.name not in ("pairs", "out", "keep", "data")
    }
    content = {
        "command": command_line(settings, prog=prog),
        "version": __version__,
        "model": settings.model,
        "started_from_sha256": sha256,
        "settings": numbers,
        "pairs": [_about_pairs(folder) for folder in settings.pairs],
        "before": read_record(settings.start) if settings.start else None,
    }
    write_bytes(settings.out / RECORD, (json.dumps(content, indent=1) + "\n").encode())


def read_record(weights: Path) -> dict[str, Any] | None:
    """The record beside some weights, a file or their folder; None if there is none."""
    path = (weights if weights.is_dir() else weights.parent) / RECORD
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def run_history(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A run and those before it, the first one first."""
    runs: list[dict[str, Any]] = []
    while record:
        runs.insert(0, record)
        record = record.get("before")
    return runs


def _about_pairs(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    counts = manifest.get("counts", {})
    return {
        "pairs": sum(shard["pairs"] for shard in manifest["shards"]),
        "nouns": counts.get("different_nouns"),
        "photos": manifest.get("sources", {}),
        "sha256": [shard["sha256"] for shard in manifest["shards"]],
    }


def photos_of(runs: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Photos by source over the runs; what several runs used counts once, with its largest number."""
    most: Counter[str] = Counter()
    for run in runs:
        for pairs in run["pairs"]:
            for source, count in pairs["photos"].items():
                most[source] = max(most[source], int(count))
    return dict(most)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.name if isinstance(value, Path) else value
