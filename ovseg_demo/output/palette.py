"""Colours of names: a name has the same colour in every picture and in both arms where it can.

The folded name selects one of 24 hues: a conventional one for a few names, such as grass, and one by its hash
for all others. Any two hues also differ for people with any of the three colour vision deficiencies; a test
measures it. Where classes that touch would still look alike, `neighbouring_colours` moves one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b

from ovseg_demo.vocabulary import fold

__all__ = ["HUES", "Colour", "assign_colours", "assignment_order"]

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

HUES: tuple[Colour, ...] = (
    (240, 15, 105),
    (240, 150, 150),
    (210, 0, 15),
    (240, 105, 75),
    (210, 165, 0),
    (180, 165, 105),
    (210, 225, 30),
    (90, 105, 0),
    (180, 225, 135),
    (150, 240, 105),
    (45, 150, 60),
    (45, 105, 60),
    (0, 240, 210),
    (60, 195, 210),
    (30, 105, 255),
    (150, 135, 255),
    (150, 120, 180),
    (120, 60, 195),
    (240, 195, 255),
    (240, 150, 255),
    (165, 0, 150),
    (135, 60, 105),
    (240, 0, 165),
    (225, 105, 150),
)
"""The hues in order around the colour circle."""

_CUSTOMARY = {
    name: hue
    for hue, names in {
        10: ("grass", "meadow", "lawn", "field"),
        11: ("tree", "trees", "forest", "fir tree"),
        7: ("plant", "plants", "leaves", "bush", "hedge"),
        13: ("sky",),
        14: ("water", "sea", "lake", "river", "ocean"),
        5: ("sand", "beach", "earth", "ground", "dirt", "soil"),
        16: ("road", "street", "pavement", "sidewalk", "concrete"),
    }.items()
    for name in names
}
"""Names with a conventional colour; a hash decides the hue of all others."""


def assign_colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Assign a colour to each name, in their order; names share one only if they fold to the same.

    A name alone always gets its own hue. Among several, a name whose hue is taken moves to the next free
    one; the order of `names` does not matter. From the 25th name on, hues repeat in other shades.

    >>> assign_colours(["grass"]) == assign_colours([" GRASS "])
    True
    """
    keys = [fold(name) for name in names]
    digests = {key: _digest(key) for key in set(keys)}
    homes = {key: int.from_bytes(digest, "big") % len(HUES) for key, digest in digests.items()}
    homes |= {key: home for key, home in _CUSTOMARY.items() if key in homes}
    waiting = list(dict.fromkeys(keys[i] for i in assignment_order(names)))
    colours: dict[str, Colour] = {}
    level = 0
    while waiting:
        slots = _assign_level(waiting, homes)
        shades = _shades(level)
        colours |= {key: shades[slot] for key, slot in slots.items()}
        waiting = [key for key in waiting if key not in slots]
        level += 1
    return tuple(colours[key] for key in keys)


def assignment_order(names: Sequence[str]) -> list[int]:
    """Positions of the names, those first that keep their colour where two look alike.

    By hash, so that the same words in another order get the same colours.
    """
    keys = [fold(name) for name in names]
    return sorted(range(len(keys)), key=lambda i: (keys[i] not in _CUSTOMARY, _digest(keys[i]), keys[i]))


def _assign_level(keys: Sequence[str], homes: Mapping[str, int]) -> dict[str, int]:
    """Assign the hues of one level: first to keys whose own hue is free, then to the others."""
    taken: dict[int, str] = {}
    for key in keys:
        taken.setdefault(homes[key], key)
    assigned = set(taken.values())
    for key in keys:
        if len(taken) == len(HUES):
            break
        if key not in assigned:
            slot = homes[key]
            while slot in taken:
                slot = (slot + 1) % len(HUES)
            taken[slot] = key
    return {key: slot for slot, key in taken.items()}


def _digest(key: str) -> bytes:
    # Not Python's own hash, which differs from run to run.
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@cache
def _shades(level: int) -> tuple[Colour, ...]:
    """The hues of one level, distinct from those of all others; level 0 is `HUES` itself.

    Levels go by threes towards black, white and grey. The fractions halve the gaps between earlier ones (the
    van der Corput sequence), so that few levels are far apart and many still differ.
    """
    if level == 0:
        return HUES
    earlier = {colour for before in range(level) for colour in _shades(before)}
    target = (0, 255, 128)[level % 3]
    share = 0.15 + 0.5 * _van_der_corput((level + 2) // 3)
    shades: list[Colour] = []
    for hue in HUES:
        red, green, blue = (round(value + share * (target - value)) for value in hue)
        while (red, green, blue) in earlier:
            blue = (blue + 1) % 256
        earlier.add((red, green, blue))
        shades.append((red, green, blue))
    return tuple(shades)


def _van_der_corput(index: int) -> float:
    """1, 2, 3, 4, ... -> 1/2, 1/4, 3/4, 1/8, ...: the binary digits of `index`, mirrored at the point."""
    value, weight = 0.0, 0.5
    while index:
        index, digit = divmod(index, 2)
        value += digit * weight
        weight /= 2
    return value
