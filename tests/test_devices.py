"""Out of memory, batches shrink before a request fails; errors of a GPU are distinguished from a full one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovseg_demo.devices import in_batches, is_device_failure, is_out_of_memory
from ovseg_demo.errors import ResourceError

CPU_FULL = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
GPU_BROKEN = RuntimeError("CUDA error: an illegal memory access was encountered")


def squares(count: int, at_once: int, room: int) -> tuple[list[int], list[int]]:
    """0, 1, 4, ... made in batches on a machine with memory for `room` at a time; and the sizes tried."""
    tried: list[int] = []

    def work(some: slice) -> list[int]:
        numbers = range(count)[some]
        tried.append(len(numbers))
        if len(numbers) > room:
            raise CPU_FULL
        return [n * n for n in numbers]

    parts = in_batches(work, count, at_once, what="one number", advice="buy more")
    return [n for part in parts for n in part], tried


@pytest.mark.parametrize("room", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_smaller_batches_give_the_same_in_the_same_order(count: int, room: int) -> None:
    assert squares(count, 8, room)[0] == [n * n for n in range(count)]


def test_a_size_that_did_not_fit_is_not_tried_again() -> None:
    assert squares(16, 8, 2)[1] == [8, 4, *[2] * 8]


def test_what_does_not_fit_alone_is_one_sentence() -> None:
    with pytest.raises(ResourceError, match=r"^There is not enough memory for one number; buy more\.$"):
        squares(4, 4, 0)


def test_other_errors_pass_unchanged() -> None:
    def work(some: slice) -> int:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        list(in_batches(work, 3, 2, what="", advice=""))


def test_what_torch_and_numpy_really_raise_is_recognised() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60)
    with pytest.raises(MemoryError) as of_numpy:
        np.ones(1 << 55, np.uint8)
    for error in (of_torch.value, of_numpy.value, CPU_FULL, torch.OutOfMemoryError("CUDA out of memory.")):
        assert is_out_of_memory(error)
        assert not is_device_failure(error)


def test_a_failed_device_is_distinguished_from_full_memory_and_other_errors() -> None:
    assert is_device_failure(GPU_BROKEN)
    assert is_device_failure(AssertionError("Torch not compiled with CUDA enabled"))
    assert not is_out_of_memory(GPU_BROKEN)
    assert not is_device_failure(RuntimeError("shape mismatch"))
    assert not is_device_failure(ValueError("CUDA"))
