"""What a result says in plain words: what was found, what another arm says of it, what was done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovseg_demo.models import YOURS
from ovseg_demo.result import Comparison, Segmentation, percent

__all__ = ["difference", "headline", "timing"]

_INSTANT_S = 0.5
"""Longest answer that is called instant."""

_LEAST_SHARE = 0.01
"""Of the photo: a change of name on less is not worth a sentence."""

_STAGES = (("CLIP", "embed"), ("words", "text"))

_CALLED = {"adapted": "the adapted CLIP", "vanilla": "the plain CLIP", YOURS: "the CLIP that you taught"}


def headline(result: Segmentation) -> str:
    """What was found and what was not: "Pizza, bottle and plate found; no dog."."""
    found = [c.name for c in result.found]
    if not found:
        return "None of these words fit." if len(result.classes) > 1 else "This word does not fit."
    told = f"{_listed(found, 'and')} found"
    if absent := [c.name for c in result.not_found]:
        told += f"; no {_listed(absent, 'or', 3)}"
    return _capital(told) + "."


def difference(comparison: Comparison) -> str:
    """What changes between the two arms, in words; never which of them is right."""
    one, other = comparison.arms
    this, that = (_CALLED.get(arm.arm, f"the arm {arm.arm}") for arm in (one, other))
    before, after = {c.index for c in one.found}, {c.index for c in other.found}
    sentences = []
    for who, indices in ((that, after - before), (this, before - after)):
        if alone := [c.name for c in other.classes if c.index in indices]:
            sentences.append(f"{_capital(who)} also finds {_listed(alone, 'and', 3)}.")
    sentences += [
        f"Where {that} sees {_said(other, mine)}, {this} sees {_said(one, theirs)} "
        f"({percent(share)} of the photo)."
        for share, theirs, mine in _changes(one, other)[:2]
    ]
    if sentences:
        return " ".join(sentences)
    if comparison.changed_fraction == 0 and not comparison.renamed:
        return f"{_capital(that)} and {this} say the same everywhere."
    share = percent(comparison.changed_fraction)
    return f"{_capital(that)} and {this} say nearly the same; they differ in {share} of the photo."


def timing(arms: Sequence[Segmentation], seconds: float) -> tuple[str, bool]:
    """What was done and how long it took; and whether that may be called instant."""
    # The regions are found once for all arms.
    stages = [("regions", arms[0].timings.get("propose", 0.0))]
    stages += [(name, sum(arm.timings.get(key, 0.0) for arm in arms)) for name, key in _STAGES]
    parts = ", ".join(f"{name} {spent:.1f} s" for name, spent in stages if spent >= 0.05)
    done = f"{seconds:.1f} s" + (f" ({parts})" if parts else "")
    if any(arm.timings.get(key, 0.0) for arm in arms for key in ("propose", "embed")):
        return f"Done in {done}.", False
    return f"Only the words were scored again: {done}.", seconds <= _INSTANT_S


def _changes(one: Segmentation, other: Segmentation) -> list[tuple[float, int, int]]:
    """(share of the photo, class index in `one`, in `other`) of what both name differently, largest first."""
    differs = (one.label_map != other.label_map) & (one.label_map > 0) & (other.label_map > 0)
    pairs = np.stack([one.label_map[differs], other.label_map[differs]])
    kinds, counts = np.unique(pairs, axis=1, return_counts=True)
    shares = counts / one.label_map.size
    found = [
        (float(share), int(a), int(b))
        for share, (a, b) in zip(shares, kinds.T, strict=True)
        if share >= _LEAST_SHARE
    ]
    return sorted(found, reverse=True)


def _said(result: Segmentation, index: int) -> str:
    return result.classes[index - 1].name


def _listed(names: Sequence[str], last: str, most: int = 5) -> str:
    """ "a, b and c"; of more than `most` the first, and how many more."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
