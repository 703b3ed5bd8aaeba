"""Work in steps ends, is timed, is kept, and survives a device that gives out."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ovseg_demo.errors import ImageError, ResourceError
from ovseg_demo.progress import map_steps, run_to_end, with_cpu_fallback

BROKEN = RuntimeError("CUDA error: an illegal memory access was encountered")
FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory")


def attempts(*errors: Exception) -> tuple[list[int], Generator[int, None, str], list[str]]:
    """What was begun, the work that fails so often, and what was left behind."""
    begun: list[int] = []
    left: list[str] = []
    waiting = list(errors)

    def attempt() -> Generator[int, None, str]:
        begun.append(len(begun))
        yield 1
        if waiting:
            raise waiting.pop(0)
        return "done"

    def leave() -> bool:
        left.append("gpu")
        return len(left) == 1

    return begun, with_cpu_fallback(attempt, leave), left


def test_what_works_is_done_once() -> None:
    begun, work, left = attempts()
    assert run_to_end(work) == "done" and begun == [0] and left == []


def test_a_gpu_that_fails_is_left_once() -> None:
    begun, work, left = attempts(BROKEN)
    assert run_to_end(work) == "done" and begun == [0, 1] and left == ["gpu"]


def test_memory_that_is_full_is_one_sentence() -> None:
    _, work, left = attempts(FULL)
    with pytest.raises(ResourceError, match="not enough memory for this"):
        run_to_end(work)
    assert left == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        ResourceError("said already: out of memory"),
        ImageError("'out of memory.jpg' does not exist."),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    _, work, left = attempts(error)
    with pytest.raises(type(error), match=str(error)):
        run_to_end(work)
    assert left == []


def test_closing_it_closes_the_attempt() -> None:
    closed: list[bool] = []

    def attempt() -> Generator[int, None, str]:
        try:
            yield 1
        finally:
            closed.append(True)
        return "done"

    work = with_cpu_fallback(attempt, lambda: True)
    next(work)
    work.close()
    assert closed == [True]


def counted(closed: list[bool]) -> Generator[int, None, str]:
    try:
        yield from (1, 2, 3)
    finally:
        closed.append(True)
    return "done"


def test_steps_are_changed_or_left_out_and_the_result_stays() -> None:
    closed: list[bool] = []
    steps = map_steps(counted(closed), lambda step: None if step == 2 else step * 10)
    assert [next(steps), next(steps)] == [10, 30]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == "done" and closed == [True]


def test_a_check_that_raises_ends_the_work_and_closes_it() -> None:
    closed: list[bool] = []
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ResourceError("This took too long.")

    with pytest.raises(ResourceError, match="too long"):
        run_to_end(counted(closed), check)
    assert closed == [True]
