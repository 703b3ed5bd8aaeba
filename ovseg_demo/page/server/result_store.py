"""The visitors' last results, in bounded memory.

A result holds the photo, its maps and its masks, which can be hundreds of megabytes. Gradio's session state
knows a limit for the number of sessions only, so it gets a key, and the results are kept here.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ovseg_demo.result import Comparison, Segmentation
from ovseg_demo.settings import Settings

__all__ = ["ResultStore"]

Result = Segmentation | Comparison
_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _StoredResult:
    result: Result
    size_bytes: int
    since: float


class ResultStore:
    """Results by key; the oldest make room, and none stays longer than a visitor's state may.

    Args:
        settings: limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _StoredResult] = OrderedDict()

    def put(self, result: Result) -> str:
        """Keeps a result; returns the key, which nobody can guess."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = _StoredResult(result, size_bytes(result), time.monotonic())
            self._make_room()
        return key

    def get(self, key: str | Result | None) -> Result | None:
        """The result; None if it is not kept (any more). One that needs no keeping stands for itself."""
        if key is None or isinstance(key, Segmentation | Comparison):
            return key
        with self._lock:
            self._make_room()
            found = self._kept.get(key)
        return found.result if found else None

    def drop(self, key: str | Result | None) -> None:
        """Forgets a result."""
        with self._lock:
            self._kept.pop(key if isinstance(key, str) else "", None)

    @property
    def kept_bytes(self) -> int:
        """Memory of all that is kept."""
        return sum(item.size_bytes for item in list(self._kept.values()))

    def _make_room(self) -> None:
        limits = self._settings
        oldest = time.monotonic() - limits.state_lifetime_s
        while self._kept and (
            next(iter(self._kept.values())).since < oldest
            or len(self._kept) > limits.max_visitors
            # The youngest stays, however large: its visitor has just been told that it is there.
            or (len(self._kept) > 1 and self.kept_bytes > limits.max_kept_bytes)
        ):
            self._kept.popitem(last=False)


def size_bytes(result: Result) -> int:
    """Memory of a result's arrays; those that both arms share count once."""
    arms = result.arms if isinstance(result, Comparison) else (result,)
    return sum({id(array): array.nbytes for arm in arms for array in _arrays(arm)}.values())


def _arrays(arm: Segmentation) -> Iterator[_Array]:
    yield from (arm.image, arm.label_map, arm.region_map)
    if arm.masks is not None:
        yield arm.masks
