"""Several pieces of work at once on a CPU, each on one thread of its own.

PyTorch splits every operation over all cores, and each one waits for the slowest of them: thousands of waits
a photo, and where another program holds a core, most of the time. Crops and prompts are
independent: one thread for each waits only once.
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
    """How many pieces of work a device does at once: PyTorch's threads on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def shares(count: int, parts: int, at_most: int) -> list[slice]:
    """`range(count)` in order, cut into pieces of equal size: one for each part, or more of `at_most`."""
    if count == 0:
        return []
    pieces = max(min(parts, count), -(-count // at_most))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def parallel_map(work: Callable[[T], R], pieces: Sequence[T], device: torch.device) -> list[R]:
    """The results of `work` on each piece, in order; several at once where that helps.

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
    """Threads on which PyTorch uses one core each. The number is a thread's own once it has asked for it.

    `process` is the caller's, since a forked process has none of its parent's threads.
    """
    started = threading.Barrier(count + 1)

    def settle() -> None:
        torch.get_num_threads()  # else PyTorch would set the thread up later, over what comes next
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="region", initializer=settle)
    for _ in range(count):
        pool.submit(_nothing)
    started.wait()
    torch.set_num_threads(count)  # it is also what threads that start later begin with
    return pool


def _nothing() -> None:
    """Makes the pool start a thread."""
