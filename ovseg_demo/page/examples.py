"""The example photos with their words, from the folder `examples/` of the repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Example", "load_examples"]

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Example:
    """One photo and what to look for in it."""

    photo: Path
    title: str
    words: str
    """As typed: names parted by commas, synonyms by bars; some are not in the photo."""
    shows: str
    """What the words are about: parts, materials, near relatives, things that are not there."""
    credit: str
    """Author and licence of the photo."""
    errs: str = ""
    """What its result gets wrong and why, in a sentence or two; "" where nothing stands out."""


def load_examples(folder: Path = FOLDER) -> tuple[Example, ...]:
    """The examples in their order; none if the folder is not there, as in an installed package."""
    try:
        listed = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return tuple(
        Example(
            folder / item["photo"],
            item["title"],
            ", ".join(item["vocabulary"]),
            item["shows"],
            f"{item['author']}, {item['licence']}",
            item.get("errs", ""),
        )
        for item in listed
    )
