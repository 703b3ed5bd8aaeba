"""What the command line says of a result, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovseg_demo.result import ClassResult, Segmentation, percent

_MAX_LISTED = 20


def summary(photo: Path, folder: Path, result: Segmentation) -> str:
    """Two or three lines about one arm: where it is, what is found and what is not."""
    lines = [f"{photo} -> {folder} ({result.timings.get('total', 0.0):.1f} s)"]
    found = [f"{c.name} {percent(c.area_fraction)}" for c in result.found]
    lines.append(f"  found:     {listed(found)}" if found else "  found:     nothing; try other words")
    if result.not_found:
        lines.append(f"  not found: {listed([c.name for c in result.not_found])}")
    return "\n".join(lines)


def arms_summary(photo: Path, folder: Path, results: Sequence[Segmentation], verdict: str = "") -> str:
    """Lines about several arms of one photo, the main one first, and what differs."""

    def names(classes: tuple[ClassResult, ...]) -> str:
        return listed([f"{c.name} {percent(c.area_fraction)}" for c in classes]) or "nothing"

    seconds = results[-1].timings.get("total", 0.0)  # of all: they come from one request
    finds = [f"  {arm.arm} finds: {names(arm.found)}" for arm in reversed(results)]
    lines = [f"{photo} -> {folder} ({seconds:.1f} s)", *finds]
    return "\n".join([*lines, f"  {verdict}"] if verdict else lines)


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
