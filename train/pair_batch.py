"""What one step of fine-tuning or prompt tuning is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one step, or of a part of it, on one process.

    Attributes:
        inputs: crops (B, 3, S, S), or for a tower with a stem what that made of them, (B, C, h, w).
        token_mask: (B, N) of 0 and 1.
        nouns: (B,) int64 rows of the noun bank.
        targets: (B, M) float32, vanilla's distribution over the bank for the same box unmasked, or None.
    """

    inputs: Tensor
    token_mask: Tensor
    nouns: Tensor
    targets: Tensor | None = None

    def to(self, device: str) -> PairBatch:
        """On another device."""
        return self._with(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> PairBatch:
        """In memory that a GPU copies from by itself."""
        return self._with(lambda value: value.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        targets = None if self.targets is None else change(self.targets)
        return PairBatch(change(self.inputs), change(self.token_mask), change(self.nouns), targets)
