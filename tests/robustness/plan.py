"""How much of everything a run does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "SHORT", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Numbers of attempts, and lengths in seconds."""

    files: int
    """Hostile files through the loader."""
    files_through_app: int
    vocabularies: int
    vocabularies_embedded: int
    """Of these, how many are embedded and exported, too."""
    clients: int
    load_s: float
    runs: int
    """Of the same request, for determinism."""
    thorough: bool
    """Whether what takes long by nature is done: the largest pictures, every odd surrounding."""


FULL = Plan(20_000, 500, 10_000, 300, 32, 300.0, 20, thorough=True)
SHORT = Plan(300, 6, 500, 5, 4, 3.0, 2, thorough=False)
