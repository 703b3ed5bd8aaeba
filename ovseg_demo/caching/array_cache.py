"""Values computed from arrays, kept as long as the array itself is.

    packed = ArrayCache(pack)
    packed(masks, 640, 480)   # calls pack(masks, 640, 480)
    packed(masks, 640, 480)   # does not

Only for arrays that are never changed: the key is the array object, not its contents.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy.typing as npt

__all__ = ["ArrayCache"]

P = ParamSpec("P")
V = TypeVar("V")


class ArrayCache(Generic[P, V]):
    """A function of an array, and of further values, that is computed once for each.

    Args:
        compute: the function; two threads may call it for the same array at the same time.
    """

    def __init__(self, compute: Callable[Concatenate[npt.NDArray[Any], P], V]) -> None:
        self._compute = compute
        self._values: dict[tuple[Any, ...], tuple[weakref.ref[npt.NDArray[Any]], V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, array: npt.NDArray[Any], *more: P.args, **named: P.kwargs) -> V:
        """The function's value; further arguments must be hashable."""
        key = id(array), more, tuple(named.items())
        kept = self._values.get(key)
        if kept is not None and kept[0]() is array:
            return kept[1]
        value = self._compute(array, *more, **named)

        def drop(reference: weakref.ref[npt.NDArray[Any]]) -> None:
            # A later array may have taken over the id.
            if (now := self._values.get(key)) is not None and now[0] is reference:
                self._values.pop(key, None)

        self._values[key] = weakref.ref(array, drop), value
        return value
