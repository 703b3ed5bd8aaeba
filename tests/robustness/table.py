"""Figures with their targets, and the table they are printed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "is_sentence", "printed", "share_of"]


@dataclass(frozen=True)
class Figure:
    """One thing that was measured."""

    what: str
    value: str
    target: str
    holds: bool
    remarks: tuple[str, ...] = ()
    """What went wrong, one line each; shown if the target is missed."""

    @classmethod
    def none_of(cls, count: int, what: str, bad: Sequence[str]) -> Figure:
        """`count` attempts of which none may be among `bad`."""
        return cls(what, f"{len(bad)} of {count:,}", "0", count > 0 and not bad, tuple(bad))

    @classmethod
    def at_most(cls, what: str, value: float, limit: float, unit: str) -> Figure:
        """A number that may not be larger than a limit."""
        return cls(what, f"{value:,.3g} {unit}", f"<= {limit:,.6g} {unit}", value <= limit)

    @classmethod
    def skipped(cls, what: str, why: str) -> Figure:
        """What could not be measured on this machine; says why instead of a number."""
        return cls(what, f"skipped: {why}", "-", True)


def printed(part: str, figures: Sequence[Figure]) -> str:
    """The figures of one part as lines."""
    lines = [f"\n{part}"]
    width = max((len(figure.what) for figure in figures), default=0)
    for figure in figures:
        mark = "ok  " if figure.holds else "FAIL"
        lines.append(f"  {mark}  {figure.what:<{width}}  {figure.value}  (target {figure.target})")
        if not figure.holds:
            lines += [f"          {remark[:300]}" for remark in figure.remarks[:20]]
    return "\n".join(lines)


_NOT_FOR_PEOPLE = re.compile(r"Traceback|Error:|Exception|site-packages|0x[0-9a-f]{6,}|<class|object at")


def is_sentence(message: str) -> bool:
    """Whether a message is one clear line for people: a start, an end, nothing of the machinery."""
    text = re.sub(r" \(request [0-9a-f]{8}\)$", "", message)
    return (
        10 < len(text) <= 600
        and text.isprintable()
        and (text[0].isupper() or text[0] in "'/")
        and text.endswith(".")
        and not _NOT_FOR_PEOPLE.search(re.sub(r"'[^']*'", "", text))
    )


def share_of(part: int, whole: int) -> str:
    """ "12 of 40"."""
    return f"{part:,} of {whole:,}"
