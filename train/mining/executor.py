"""Run chunks in this process, in several processes, or on a Ray cluster, with the same files as result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from ovseg_demo.errors import SettingsError
from ovseg_demo.ray_backend import on_ray

Engine = Literal["local", "ray"]
ChunkTask = Callable[[int], dict[str, int]]
"""Processes the chunk of this number, writes its file, returns counts for the log."""
TaskFactory = Callable[[], ChunkTask]
"""Builds a task with its models; each worker calls it once, so it must be picklable."""

_WORKER_TASK: list[ChunkTask] = []  # a worker process serves one task, built when the process starts


def run_chunks(
    make: TaskFactory, chunks: Sequence[int], *, engine: Engine, workers: int, name: str, log: Path
) -> None:
    """Process the chunks with a progress bar; each adds a line to the log.

    Args:
        make: builds the task.
        chunks: numbers of the unfinished chunks; without any, nothing is built.
        engine: "local" or "ray".
        workers: processes, or Ray actors.
        name: of the stage.
        log: file to append to.

    Raises:
        SettingsError: fewer than one worker, or Ray is asked for and not installed.
    """
    if workers < 1:
        raise SettingsError(f"--workers must be at least 1, not {workers}.")
    if not chunks:
        return
    if engine == "ray":
        results = _on_ray(make, chunks, workers)
    elif workers == 1:
        results = _in_this_process(make, chunks)
    else:
        results = _in_processes(make, chunks, min(workers, len(chunks)))
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    with log.open("a") as file, tqdm(results, desc=name, total=len(chunks), unit="chunk") as bar:
        for number, counts in bar:
            said = " ".join(f"{key}={count}" for key, count in counts.items())
            now, seconds = time.strftime("%H:%M:%S"), time.time() - start
            file.write(f"{now} {name} chunk={number} {said} elapsed_s={seconds:.1f}\n")
            file.flush()


def _in_this_process(make: TaskFactory, chunks: Sequence[int]) -> Iterator[tuple[int, dict[str, int]]]:
    task = make()
    for number in chunks:
        yield number, task(number)


def _in_processes(
    make: TaskFactory, chunks: Sequence[int], workers: int
) -> Iterator[tuple[int, dict[str, int]]]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make, threads)) as pool:
        try:
            futures = {pool.submit(_run_chunk, number): number for number in chunks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(make: TaskFactory, threads: int) -> None:
    torch.set_num_threads(threads)
    _WORKER_TASK[:] = [make()]


def _run_chunk(number: int) -> dict[str, int]:
    return _WORKER_TASK[0](number)


def _on_ray(make: TaskFactory, chunks: Sequence[int], workers: int) -> Iterator[tuple[int, dict[str, int]]]:
    for row in on_ray(partial(_row_task, make), [{"chunk": number} for number in chunks], workers):
        yield int(row["chunk"]), {key: int(value) for key, value in row["counts"].items()}


def _row_task(make: TaskFactory) -> Callable[[dict[str, Any]], dict[str, Any]]:
    task = make()

    def work(row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["chunk"])
        return {"chunk": number, "counts": task(number)}

    return work
