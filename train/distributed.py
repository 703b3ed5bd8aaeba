"""One process or many: the same code under `python` and under `torchrun`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> None:
    """Join the group that torchrun has set up; do nothing in a plain run."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of a global batch, every n-th row."""
    return rows[dist.get_rank() :: world()] if dist.is_initialized() else rows


def wrap(model: nn.Module) -> Any:
    """Average gradients over processes where there are several."""
    if not dist.is_initialized():
        return model
    return nn.parallel.DistributedDataParallel(model)


def gather(values: Tensor) -> Tensor:
    """(B, ...) of this process to (world * B, ...) of all; gradients reach every process's own part."""
    if not dist.is_initialized():
        return values
    if values.requires_grad:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(values))
    everyone = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(everyone, values)
    return torch.cat(everyone)


def mean(value: float) -> float:
    """Average of a number over the processes."""
    if not dist.is_initialized():
        return value
    number = torch.tensor(value)
    dist.all_reduce(number)
    return float(number) / world()
