"""Tables of figures in this folder's README, each written by the benchmark that measured it.

A table stands between <!-- name --> and <!-- end of name -->; `--readme` of a benchmark replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg_demo.files import write_text

README = Path(__file__).with_name("README.md")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def measured(command: str, machine: Mapping[str, Any], more: str = "") -> str:
    """The line above a table: what printed it, when and where."""
    load = f", load {machine['load']}" if machine.get("load") is not None else ""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"
    return (
        f"`{command}`, {machine['date']} UTC, {machine['processor']}, {machine['cores']} cores, {threads}, "
        f"torch {machine['torch']}{load}{more}."
    )


def write_section(name: str, text: str, path: Path = README) -> None:
    """Replace the section of this name.

    Raises:
        ValueError: the file has no such section.
    """
    old = path.read_text("utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(old):
        raise ValueError(f"{path} has no section {name!r}.")
    new = pattern.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", old)
    write_text(path, new)
