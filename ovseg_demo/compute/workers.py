"""Run independent pieces of work in parallel on a CPU, one thread each.

PyTorch splits every operation over all cores and waits for the slowest: thousands of waits a photo, and most
of the time where another program uses a core. Crops and prompts are independent, so one thread each waits
once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def workers(device: torch.device) -> int:
    """Number of pieces processed at once: PyTorch's threads on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def shares(count: int, parts: int, at_most: int, step: int = 1) -> list[slice]:
    """Split `range(count)` into slices as even as their step allows.

    Args:
        count: may be 0.
        parts: how many slices are worked on at once; each gets as many as the others, if there are enough.
        at_most: largest size, a multiple of `step`.
        step: sizes are multiples of it, but for the last.
    """
    if count == 0:
        return []
    steps = -(-count // step)
    pieces = min(parts * -(-count // (parts * at_most)), steps)
    edges = [min(step * (steps * i // pieces), count) for i in range(pieces + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def parallel_map(work: Callable[[T], R], pieces: Sequence[T], device: torch.device) -> list[R]:
    """Apply `work` to each piece and return the results in order; in parallel on a CPU.

    `work` runs under the caller's gradient mode and must not call this function itself.
    """
    count = workers(device)
    if count == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def under_the_same_mode(piece: T) -> R:
        mode: AbstractContextManager[object] = (
            torch.inference_mode() if inference else torch.set_grad_enabled(gradients)
        )
        with mode:
            return work(piece)

    return list(_pool(count, os.getpid()).map(under_the_same_mode, pieces))


@lru_cache(maxsize=1)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch uses one core each; its thread count belongs to the thread once it is read.

    Args:
        count: number of threads.
        process: id of the caller's process; a forked process has none of its parent's threads.
    """
    started = threading.Barrier(count + 1)

    def settle() -> None:
        torch.get_num_threads()  # otherwise PyTorch initialises the thread later and undoes the next line
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="region", initializer=settle)
    for _ in range(count):
        pool.submit(_nothing)
    started.wait()
    torch.set_num_threads(count)  # also the initial value of threads that start later
    return pool


def _nothing() -> None:
    """Do nothing; submitted so that the pool starts a thread."""
