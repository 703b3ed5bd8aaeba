"""Parallel work gives the same results in the same order, with errors and gradient mode."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ovseg_demo.compute.workers import parallel_map, shares, workers

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch uses two threads on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "parts", "at_most", "step", "sizes"),
    [
        (0, 2, 8, 1, []),
        (1, 4, 8, 1, [1]),
        (8, 2, 8, 1, [4, 4]),
        (9, 2, 8, 1, [4, 5]),
        (20, 2, 8, 1, [5, 5, 5, 5]),  # three slices would leave one of two parts without work
        (17, 3, 8, 1, [5, 6, 6]),
        (8, 1, 8, 1, [8]),
        (31, 2, 32, 4, [16, 15]),
        (42, 2, 32, 4, [20, 22]),
        (66, 2, 32, 4, [16, 16, 16, 18]),
        (3, 2, 32, 4, [3]),
    ],
)
def test_shares_are_even_and_leave_nothing_out(
    count: int, parts: int, at_most: int, step: int, sizes: list[int]
) -> None:
    pieces = shares(count, parts, at_most, step)
    assert [i for piece in pieces for i in range(count)[piece]] == list(range(count))
    lengths = [piece.stop - piece.start for piece in pieces]
    assert max(lengths, default=0) <= at_most
    assert max(lengths, default=0) - min(lengths, default=0) <= step
    assert lengths == sizes


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_from_several_threads_of_one_core_each() -> None:
    together = threading.Barrier(2, timeout=60)

    def work(number: int) -> tuple[int, int, str]:
        together.wait()  # two pieces are at work at the same time, or this breaks
        return number, torch.get_num_threads(), threading.current_thread().name

    done = parallel_map(work, range(6), CPU)
    assert [number for number, _, _ in done] == list(range(6))
    assert {threads for _, threads, _ in done} == {1}
    assert len({name for _, _, name in done}) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_that_start_later_still_have_all_cores() -> None:
    parallel_map(lambda _: None, range(2), CPU)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [2]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_gradient_mode_holds(mode: type) -> None:
    with mode():
        expected = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        seen = parallel_map(
            lambda _: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()), range(4), CPU
        )
    assert set(seen) == {expected}


@pytest.mark.usefixtures("two_threads")
def test_an_error_reaches_the_caller() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("the third piece")
        return number

    with pytest.raises(ValueError, match="the third piece"):
        parallel_map(work, range(4), CPU)


def test_on_a_gpu_or_on_one_core_the_caller_does_it_all() -> None:
    assert workers(torch.device("cuda")) == 1
    names = parallel_map(lambda _: threading.current_thread().name, range(3), torch.device("cuda"))
    assert set(names) == {threading.current_thread().name}
