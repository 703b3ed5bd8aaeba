"""Which parts belong to which things, read off the named regions that may be trained on.

    python -m train.part_names

A row of the table is a name of regions and what they were said to be a part of in enough photos of folds 1 to
9. Rare pairs, and names that are mostly no part of it (a tree is seldom part of a garden), are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import ovseg_demo
from ovseg_demo.naming.part_names import FILE
from ovseg_demo.vocabulary import fold
from train.core.files import write_text
from train.core.options import DEFAULT_DATA, run_command
from train.data.named_regions import NamedPhoto, training_regions


@dataclass(frozen=True)
class PartNamesSettings:
    """Write the table of parts that ships with the program."""

    data: Path = DEFAULT_DATA
    """Folder that holds named_regions."""
    out: Path = Path(ovseg_demo.__file__).parent / "presets" / FILE
    """File to write."""
    photos: int = 6
    """Photos in which a pair must have been seen."""
    share: float = 0.15
    """Share of the regions of this name that must have been a part of it."""


def part_table_of(photos: tuple[NamedPhoto, ...], settings: PartNamesSettings) -> dict[str, list[str]]:
    """Parts and their wholes, both by how often they were seen."""
    regions: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for photo in photos:
        for region in photo.named():
            for name in {fold(name) for name in region.names or ()}:
                regions[name] += 1
                for whole in {fold(whole) for whole in region.part_of} - {name}:
                    pairs[name, whole] += 1
                    seen[name, whole].add(photo.name)
    table: dict[str, list[str]] = defaultdict(list)
    for (part, whole), count in pairs.most_common():
        if len(seen[part, whole]) >= settings.photos and count >= settings.share * regions[part]:
            table[part].append(whole)
    return dict(table)


def part_names(settings: PartNamesSettings) -> None:
    """Write the table and say how long it is."""
    table = part_table_of(training_regions(settings.data), settings)
    lines = [
        "# Names of parts and what they are parts of, by how often that was seen. Written by",
        "# `python -m train.part_names` from the named regions of folds 1 to 9.",
        *(" | ".join([part, *wholes]) for part, wholes in table.items()),
    ]
    write_text(settings.out, "\n".join(lines) + "\n")
    print(f"{len(table)} parts, {sum(map(len, table.values()))} pairs: {settings.out}")


if __name__ == "__main__":
    run_command(part_names, PartNamesSettings, prog="train.part_names")
