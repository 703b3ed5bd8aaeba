"""A cache in memory, bounded in bytes and in time; the least recently used value is removed first."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Generic, TypeVar

from cachetools import TTLCache

__all__ = ["MemoryCache", "size_bytes"]

T = TypeVar("T")


class MemoryCache(Generic[T]):
    """Values by key, which several threads and several owners may share.

    Args:
        max_bytes: of all arrays in the values together; a value with more is not kept.
        lifetime_s: seconds after which a value is dropped, counted from its last `put`.
    """

    def __init__(self, max_bytes: int, lifetime_s: float) -> None:
        self._lock = threading.Lock()
        self._values: TTLCache[Hashable, T] = TTLCache(
            max_bytes, lifetime_s, timer=time.monotonic, getsizeof=size_bytes
        )

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all arrays that are kept."""
        with self._lock:
            return int(self._values.currsize)

    def get(self, key: Hashable) -> T | None:
        """The value, which is now the most recently used; None if it is not kept."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value; to be called again when it has grown."""
        with self._lock:
            self._values.pop(key, None)
            with suppress(ValueError):  # larger than the whole cache may be
                self._values[key] = value

    def expire(self) -> None:
        """Drop what is over its lifetime; otherwise that happens at the next access."""
        with self._lock:
            self._values.expire()

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values.clear()


def size_bytes(value: object) -> int:
    """Bytes of the arrays and tensors in dataclasses, mappings, lists and tuples; each counts once."""
    found: dict[int, int] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(nbytes := getattr(item, "nbytes", None), int):
            found[id(item)] = nbytes
        elif is_dataclass(item):
            waiting.extend(getattr(item, part.name) for part in fields(item))
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return sum(found.values())
