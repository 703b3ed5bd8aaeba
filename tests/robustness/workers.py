"""A process that works through numbered inputs and may die or hang on any of them without taking us along."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

__all__ = ["Outcome", "in_a_worker", "memory_now_mb"]

Check = Callable[[int], tuple[str, str]]
"""From an input's number to a kind of outcome ("good", "refused", anything else is bad) and a remark."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    number: int
    kind: str
    remark: str
    cpu_s: float
    peak_mb: float
    """Most memory the worker ever had until then."""


def in_a_worker(check: Check, numbers: Iterable[int], *, wall_limit_s: float) -> Iterator[Outcome]:
    """Run `check` on every number in another process; a death is a "crash", silence a "hang".

    Args:
        check: a function of a module, since it is looked up by name in the other process.
        numbers: which inputs.
        wall_limit_s: after so long without an answer the worker is killed.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(numbers)
    while waiting:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(theirs, check, waiting), daemon=True)
        worker.start()
        theirs.close()
        done, ended = 0, "crash"
        try:
            while done < len(waiting):
                # A new worker imports first.
                if not ours.poll(wall_limit_s + (120 if done == 0 else 0)):
                    ended = "hang"
                    break
                yield ours.recv()
                done += 1
        except EOFError:
            pass
        if worker.is_alive():
            worker.kill()
        worker.join()
        if done < len(waiting):
            yield Outcome(waiting[done], ended, f"exit code {worker.exitcode}", 0.0, 0.0)
            done += 1
        waiting = waiting[done:]


def _work(pipe: Connection, check: Check, numbers: list[int]) -> None:
    # What libraries print about damaged files is not ours to show.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    for number in numbers:
        started = time.process_time()
        try:
            kind, remark = check(number)
        except Exception as error:
            kind, remark = "crash", f"{type(error).__name__}: {error}"
        spent = time.process_time() - started
        # Not ru_maxrss: a process inherits that from the one that started it, however large that was.
        pipe.send(Outcome(number, kind, remark, spent, _status_mb("self", "VmHWM")))
    pipe.close()


def memory_now_mb(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    return _status_mb(pid, "VmRSS")


def _status_mb(pid: int | str, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
