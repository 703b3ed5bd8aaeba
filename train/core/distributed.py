"""One process or many: the same code under `python` and under `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ovseg_demo.errors import SettingsError


@contextmanager
def process_group() -> Iterator[str]:
    """Join the process group of torchrun and leave it at the end; a plain run has none.

    Yields:
        This process's device: its own GPU where there are some, else the CPU.
    """
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    joined = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if joined:
        dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield device
    finally:
        if joined:
            dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the main process before the others, so that it alone computes what is cached."""
    if dist.is_initialized() and not is_main_process():
        dist.barrier()
    yield
    if dist.is_initialized() and is_main_process():
        dist.barrier()


def check_batch(batch: int, accumulate: int) -> None:
    """Refuse a batch that does not split evenly over processes and parts of a step.

    Raises:
        SettingsError: the batch cannot be split so.
    """
    parts = world_size() * accumulate
    if batch < parts or batch % parts:
        raise SettingsError(
            f"--batch {batch} cannot be split evenly over {world_size()} processes in --accumulate "
            f"{accumulate} parts: give a multiple of {parts}."
        )


def local_rows(rows: np.ndarray) -> np.ndarray:
    """This process's part of a global batch, every n-th row."""
    return rows[dist.get_rank() :: world_size()] if dist.is_initialized() else rows


def data_parallel(model: nn.Module) -> Any:
    """Average gradients over processes where there are several."""
    if not dist.is_initialized():
        return model
    return nn.parallel.DistributedDataParallel(model)


def no_sync(wrapped: Any) -> AbstractContextManager[Any]:
    """Gradients of this part of a step are only added up; the last part exchanges them."""
    return wrapped.no_sync() if isinstance(wrapped, nn.parallel.DistributedDataParallel) else nullcontext()


def all_gather(values: Tensor) -> Tensor:
    """(B, ...) of this process to (world * B, ...) of all; gradients reach every process's own part."""
    if not dist.is_initialized():
        return values
    gathered: Tensor = _Gather.apply(values)
    return gathered


class _Gather(torch.autograd.Function):
    """The values of all processes; the gradient of a process's own is the sum of what all made of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """(B, ...) -> (world * B, ...)."""
        everyone = [torch.empty_like(values) for _ in range(world_size())]
        dist.all_gather(everyone, values.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        """(world * B, ...) -> (B, ...)."""
        total: Tensor = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[dist.get_rank()]


def all_reduce_mean(values: Tensor) -> Tensor:
    """Average of numbers over the processes."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()
