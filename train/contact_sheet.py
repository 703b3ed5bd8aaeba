"""A picture of random pairs, to look at before training on them.

python -m train.contact_sheet --pairs runs/pairs --out sheet.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.core.options import run_command
from train.data.contact_sheet import write_contact_sheet


@dataclass(frozen=True)
class SheetSettings:
    """Draw random pairs of mined shards on one picture."""

    pairs: Path
    """Folder of shards."""
    out: Path = Path("contact_sheet.png")
    """Picture to write."""
    count: int = 100
    """Pairs on it."""
    seed: int = 0
    """Seed of the choice."""


def main(settings: SheetSettings) -> None:
    """Draw and say how many."""
    drawn = write_contact_sheet(settings.pairs, settings.out, count=settings.count, seed=settings.seed)
    print(f"{drawn} pairs on {settings.out}")


if __name__ == "__main__":
    run_command(main, SheetSettings, prog="train.contact_sheet")
