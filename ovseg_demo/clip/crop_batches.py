"""Networks on crops, part by part and on all cores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ovseg_demo.devices import in_batches
from ovseg_demo.workers import guided_shares, parallel_map, shares, workers

CROPS_AT_ONCE = 32
CROPS_AT_ONCE_ON_CPU = (16, 8, 4)
"""Few sizes, because oneDNN writes a program for each; maps of more crops do not fit the caches."""


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
    on_cpu = device.type == "cpu"

    def of_rows(rows: list[Tensor]) -> Tensor:
        count = len(rows[0])
        if on_cpu and (more := -count % CROPS_AT_ONCE_ON_CPU[-1]):
            rows = [torch.cat([some, some[-1:].expand(more, *some.shape[1:])]) for some in rows]
        return work(*rows)[:count]

    def of_share(share: slice) -> list[Tensor]:
        own, size = [given[share] for given in inputs], share.stop - share.start
        return list(
            in_batches(
                lambda some: of_rows([given[some] for given in own]),
                size,
                size,
                what="one region",
                advice="choose a smaller model",
            )
        )

    count = len(inputs[0])
    if on_cpu:
        pieces = guided_shares(count, workers(device), CROPS_AT_ONCE_ON_CPU)
    else:
        pieces = shares(count, 1, at_most=CROPS_AT_ONCE)
    return [part for parts in parallel_map(of_share, pieces, device) for part in parts]
