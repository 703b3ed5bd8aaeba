"""Choose devices and number types, and recognise errors of devices and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from ovseg_demo.errors import ResourceError, SettingsError

T = TypeVar("T")


def choose_device(wanted: str) -> str:
    """Turn "auto" into the best available device, and check that any other one can be used.

    Raises:
        SettingsError: the device is not on this machine.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"The device {wanted!r} cannot be used on this machine: use --device auto or cpu."
        ) from error
    return wanted


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, float32 elsewhere.

    On a CPU that is AVX512-BF16 or AMX; emulated, bfloat16 is slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # Both functions are private; a torch without them counts as not native.
        probes = [getattr(torch.cpu, f"_is_{kind}_supported", None) for kind in ("avx512_bf16", "amx_tile")]
        native = any(probe is not None and probe() for probe in probes)
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the CPU or on a GPU, in torch, NumPy or OpenCV."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(part in text for part in ("out of memory", "allocate memory", "insufficient memory"))


def is_device_failure(error: BaseException) -> bool:
    """Whether an exception means that a GPU cannot be used (any more), for another reason than its memory.

    torch raises a plain RuntimeError for most of these, so the message decides.
    """
    if is_out_of_memory(error) or not isinstance(error, (RuntimeError, AssertionError)):
        return False
    text = str(error)
    return any(part in text for part in ("CUDA", "cuDNN", "CUBLAS", "NVIDIA", "HIP error", "MPS backend"))


def in_batches(
    work: Callable[[slice], T], count: int, at_once: int, *, what: str, advice: str
) -> Iterator[T]:
    """Process `count` items in batches; halve the batch size whenever memory runs out.

    Args:
        work: processes the items of a slice of `range(count)`.
        count: number of items; 0 yields nothing.
        at_once: first batch size.
        what: name of an item, for the message.
        advice: what a person can do, for the message.

    Yields:
        The results of `work`, slice by slice in order.

    Raises:
        ResourceError: the memory does not suffice for one item.
    """
    start = 0
    while start < count:
        size = min(at_once, count - start)
        try:
            result = work(slice(start, start + size))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            result = None
        # Outside the except block the exception no longer keeps its frames and their tensors alive.
        if result is None:
            _release_cached_memory()
            if size == 1:
                raise ResourceError(f"There is not enough memory for {what}; {advice}.")
            at_once = size // 2
            continue
        yield result
        start += size


def _release_cached_memory() -> None:
    """Return the GPU memory that torch caches, so that tensors of other sizes fit."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
