"""What one step of fine-tuning or prompt tuning is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """B pairs of one step, or of a part of it, on one process; U regions without a noun may follow them.

    Attributes:
        inputs: crops (B + U, 3, S, S), or for a tower with a stem what that made of them, (B + U, C, h, w).
        token_mask: (B + U, N) of 0 and 1.
        right: (B, R) int64 rows of the noun bank, the right names of each pair, -1 = none.
        ignored: (B, I) int64, names that are neither right nor wrong, -1 = none; or None for none at all.
        targets: (B + U, M) float32, distributions over the bank: vanilla's prediction for each pair's region,
            and the labels of the regions without a noun. Or None, and then U is 0.
    """

    inputs: Tensor
    token_mask: Tensor
    right: Tensor
    ignored: Tensor | None = None
    targets: Tensor | None = None

    def to(self, device: str) -> PairBatch:
        """On another device."""
        return self._with(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> PairBatch:
        """In memory that a GPU copies from by itself."""
        return self._with(lambda value: value.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        ignored, targets = (None if one is None else change(one) for one in (self.ignored, self.targets))
        return PairBatch(change(self.inputs), change(self.token_mask), change(self.right), ignored, targets)
