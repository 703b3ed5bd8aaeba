"""Batches made ahead of the steps that use them, by processes of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.data.pair_batch import PairBatch

MicroBatch = tuple[np.ndarray, int]
"""Rows of one part of a step, and the step."""


class BatchSource(Protocol):
    """Makes the pairs of one part of a step, on the CPU."""

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The pairs of these rows, as one step sees them."""


class _BatchDataset(Dataset[PairBatch]):
    """A data set whose indices are parts."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def __getitem__(self, part: MicroBatch) -> PairBatch:
        return self.source.batch(*part)


def load_batches(
    source: BatchSource, parts: Iterable[MicroBatch], *, workers: int, device: str
) -> Iterator[PairBatch]:
    """The batches of the parts, in their order, on the device.

    Args:
        source: makes them; sent to every worker, so it must be picklable if there are some.
        parts: what to make.
        workers: processes that make batches ahead; 0 = this one, just in time.
        device: where they go.
    """
    if workers == 0:
        for rows, step in parts:
            yield source.batch(rows, step).to(device)
        return
    loader = DataLoader(
        _BatchDataset(source),
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2,
        pin_memory=device != "cpu",
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        yield batch.to(device)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
