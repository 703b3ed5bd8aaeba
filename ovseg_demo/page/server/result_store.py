"""The visitors' last results, in bounded memory.

A result holds the photo, its maps and its masks, which can be hundreds of megabytes. Gradio's session state
knows a limit for the number of sessions only, so it gets a key, and the results are kept here.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from ovseg_demo.caching.memory_cache import size_bytes
from ovseg_demo.result import Comparison, Segmentation
from ovseg_demo.settings import Settings

__all__ = ["ResultStore"]

Result = Segmentation | Comparison


@dataclass(frozen=True)
class _StoredResult:
    result: Result
    size_bytes: int
    since: float
    visitor: str


class ResultStore:
    """Results by key, for a limited time; a visitor's own older results make room first.

    Args:
        settings: limits.
    """

    RESULTS_PER_VISITOR = 2
    """The one that is shown, and the one before it, which stays on the page until the new one has arrived."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _StoredResult] = OrderedDict()
        """The most recently used last."""

    def put(self, result: Result, visitor: str = "") -> str:
        """Keep a result.

        Args:
            result: of a request.
            visitor: names whose it is; those without a name have one result each.

        Returns:
            The key, a random token.
        """
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = _StoredResult(result, size_bytes(result), time.monotonic(), visitor or key)
            own = [one for one, item in self._kept.items() if item.visitor == visitor]
            for one in own[: -self.RESULTS_PER_VISITOR]:
                del self._kept[one]
            self._make_room()
        return key

    def get(self, key: str | Result | None) -> Result | None:
        """The result; None if it is not kept (any more). One that needs no keeping stands for itself."""
        if key is None or isinstance(key, Segmentation | Comparison):
            return key
        with self._lock:
            self._drop_expired()
            found = self._kept.get(key)
            if found:
                self._kept.move_to_end(key)
        return found.result if found else None

    def drop(self, key: str | Result | None) -> None:
        """Forget a result."""
        with self._lock:
            self._kept.pop(key if isinstance(key, str) else "", None)

    def expire(self) -> None:
        """Drop what is over its lifetime; otherwise that happens at the next access."""
        with self._lock:
            self._drop_expired()

    @property
    def kept_bytes(self) -> int:
        """Memory of all that is kept."""
        return sum(item.size_bytes for item in list(self._kept.values()))

    def _drop_expired(self) -> None:
        oldest = time.monotonic() - self._settings.state_lifetime_s
        for key in [key for key, item in self._kept.items() if item.since < oldest]:
            del self._kept[key]

    def _make_room(self) -> None:
        limits = self._settings
        self._drop_expired()
        # The newest stays, however large: its visitor is being shown it.
        while len(self._kept) > 1 and (
            len(self._kept) > limits.max_visitors or self.kept_bytes > limits.max_kept_bytes
        ):
            del self._kept[self._next_to_go()]

    def _next_to_go(self) -> str:
        """The least recently used of those whose visitor has used another one since, or else of all."""
        last_of = {item.visitor: key for key, item in self._kept.items()}
        earlier = (key for key, item in self._kept.items() if last_of[item.visitor] != key)
        return next(earlier, next(iter(self._kept)))
