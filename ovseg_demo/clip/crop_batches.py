"""Networks on crops, part by part and on all cores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ovseg_demo.compute.workers import parallel_map, shares, workers
from ovseg_demo.devices import in_batches

CROPS_AT_ONCE = 32
STEP_ON_CPU = 4
"""Batches are filled up to a multiple of this: oneDNN writes a program for each size."""


def in_parts(device: torch.device, work: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Do regions part by part, on a CPU with all cores.

    Args:
        device: where the work is done.
        work: some rows of each input -> a tensor of as many rows.
        inputs: at least one, all of R rows; R may be 0.

    Returns:
        What `work` gave, R rows in all, in order.

    Raises:
        ResourceError: there is not even memory for one region at a time.
    """
    step = STEP_ON_CPU if device.type == "cpu" else 1

    def of_rows(rows: list[Tensor], size: int) -> Tensor:
        count = len(rows[0])
        # Parts are smaller than their share only where memory is short, and then nothing is added.
        if count == size and (more := -count % step):
            rows = [torch.cat([some, some[-1:].expand(more, *some.shape[1:])]) for some in rows]
        return work(*rows)[:count]

    def of_share(share: slice) -> list[Tensor]:
        own, size = [given[share] for given in inputs], share.stop - share.start
        return list(
            in_batches(
                lambda some: of_rows([given[some] for given in own], size),
                size,
                size,
                what="one region",
                advice="choose a smaller model",
            )
        )

    pieces = shares(len(inputs[0]), workers(device), CROPS_AT_ONCE, step)
    return [part for parts in parallel_map(of_share, pieces, device) for part in parts]
