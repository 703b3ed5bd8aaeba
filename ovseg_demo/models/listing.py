"""The printed table of models: what each one is, and which of its files are on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovseg_demo.files import size_text
from ovseg_demo.models.arms import arms_of
from ovseg_demo.models.local import file_size, present_file
from ovseg_demo.models.table import MODELS, ModelEntry
from ovseg_demo.models.unpinned import UNPINNED, UnpinnedModel
from ovseg_demo.settings import default_cache_dir

__all__ = ["ModelRow", "describe", "rows"]


@dataclass(frozen=True)
class ModelRow:
    """What a person wants to know about a model before asking for it."""

    name: str
    kind: str
    title: str
    licence: str
    non_commercial: bool
    arms: tuple[str, ...]
    present: tuple[str, ...]
    """Which of the arms (or "weights", for a proposer) are on this machine."""

    size_bytes: int
    """Of all its files, about; 0 where they are missing and no size is published."""


def rows(*, cache_dir: Path | None = None, models: Mapping[str, ModelEntry] = MODELS) -> tuple[ModelRow, ...]:
    """The table with what is on this machine; nothing is fetched or hashed."""
    folder = default_cache_dir() if cache_dir is None else cache_dir
    pinned = tuple(
        ModelRow(
            entry.name,
            entry.kind,
            entry.title,
            entry.licence,
            entry.non_commercial,
            entry.arms,
            _present(entry, folder),
            sum(file_size(entry, source, folder) for source in entry.sources.values()),
        )
        for entry in models.values()
    )
    unpinned = UNPINNED.values() if models is MODELS else ()
    return pinned + tuple(_unpinned_row(entry, folder) for entry in unpinned)


def _unpinned_row(entry: UnpinnedModel, folder: Path) -> ModelRow:
    arms = arms_of(entry.name) if entry.kind == "clip" else ()
    present = (arms or ("weights",)) if entry.present(folder) else ()
    return ModelRow(
        entry.name,
        entry.kind,
        entry.title,
        entry.licence,
        entry.non_commercial,
        arms,
        present,
        entry.size_bytes,
    )


def _present(entry: ModelEntry, folder: Path) -> tuple[str, ...]:
    parts = {part for part, source in entry.sources.items() if present_file(entry, source, folder)}
    return tuple(arm for arm in entry.arms if entry.part_of(arm) in parts) or tuple(parts)


def describe(*, cache_dir: Path | None = None, models: Mapping[str, ModelEntry] = MODELS) -> str:
    """The table as text, for a terminal."""
    lines = [("name", "kind", "arms", "size", "here", "licence", "what")]
    for row in rows(cache_dir=cache_dir, models=models):
        wanted = len(row.arms) or 1
        here = "yes" if len(row.present) == wanted else ", ".join(row.present) or "no"
        size = size_text(row.size_bytes) if row.size_bytes else "-"
        arms = ", ".join(row.arms) or "-"
        lines.append((row.name, row.kind, arms, size, here, row.licence, row.title))
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
