"""Progress of work in steps, a stopwatch, and another attempt on the CPU if a device fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.errors import OvsegError, ResourceError

__all__ = ["Progress", "Stopwatch", "embedding_progress", "map_steps", "run_to_end", "with_cpu_fallback"]

_SMALL_SIDE = 256
"""Longer side at most, in pixels, of the masks that go with `embedding_progress`."""

S = TypeVar("S")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Progress:
    """How far a request is."""

    stage: Literal["read", "propose", "embed", "text", "merge"]
    fraction: float
    """Of the whole request, 0..1."""
    message: str
    """One line for people."""
    masks: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    """Small (k, h, w) masks. While regions are found ("propose"): those new since the step before, raw, some
    nearly the same. Before they are embedded ("embed"): all that are. None where there is nothing to tell."""


def embedding_progress(masks: NDArray[np.bool_], fraction: float) -> Progress:
    """The step before regions are embedded: all (K, H, W) masks go with it, thinned out and not copied."""
    step = max(1, -(-max(masks.shape[1:]) // _SMALL_SIDE))
    return Progress("embed", fraction, f"Looking at {len(masks)} regions", masks[:, ::step, ::step])


def map_steps(
    steps: Generator[S, None, T], change: Callable[[S], U | None], check: Callable[[], None] = lambda: None
) -> Generator[U, None, T]:
    """The same generator with other steps; its result is the same.

    Args:
        steps: is closed at the end, however that comes.
        change: makes the new step; None leaves it out.
        check: called before each step; raises to end the work.
    """
    with closing(steps):
        while True:
            check()
            try:
                step = next(steps)
            except StopIteration as end:
                return cast(T, end.value)
            if (changed := change(step)) is not None:
                yield changed


def run_to_end(steps: Generator[S, None, T], check: Callable[[], None] = lambda: None) -> T:
    """Run a generator to its end and return its result; `check` as in `map_steps`."""
    silent: Generator[None, None, T] = map_steps(steps, lambda step: None, check)
    while True:
        try:
            next(silent)
        except StopIteration as end:
            return cast(T, end.value)


def with_cpu_fallback(
    attempt: Callable[[], Generator[S, None, T]], leave_device: Callable[[], bool]
) -> Generator[S, None, T]:
    """An attempt, and another one if a device fails for another reason than its memory.

    Args:
        attempt: starts the work from the beginning.
        leave_device: moves the work to the CPU; False if it is there already.

    Raises:
        ResourceError: there is not enough memory.
    """
    try:
        return (yield from attempt())
    except Exception as error:
        # Imported here because it loads torch, and the page is built without torch.
        from ovseg_demo.devices import is_device_failure, is_out_of_memory

        if isinstance(error, OvsegError) or not (is_out_of_memory(error) or is_device_failure(error)):
            raise
        full = is_out_of_memory(error)
        if not full and not leave_device():
            raise
    # Outside the except block the exception no longer keeps its frames and their tensors alive.
    if full:
        raise ResourceError(
            "There is not enough memory for this; try a smaller photo, fewer words or a smaller model."
        )
    return (yield from attempt())


class Stopwatch:
    """Seconds of each stage, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """End the stage of this name: record the seconds since the last mark."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
