"""The models of the page, loaded when first needed and shared by all visitors."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ovseg_demo.settings import Settings

if TYPE_CHECKING:
    from ovseg_demo.segmenter import Segmenter

__all__ = ["ModelPool"]


class ModelPool:
    """Keeps the segmenters that were used last; torch is imported with the first one.

    Args:
        settings: limits, default model and device.
        kept: how many pairs of model and proposer stay in memory.
    """

    def __init__(self, settings: Settings, *, kept: int = 2) -> None:
        self.settings = settings
        self._kept = kept
        self._lock = threading.Lock()
        self._segmenters: dict[tuple[str, str], Segmenter] = {}

    def has(self, model: str, proposer: str) -> bool:
        """Whether `get` would answer at once."""
        return (model, proposer) in self._segmenters

    def get(self, model: str, proposer: str) -> Segmenter:
        """The segmenter for this pair, loaded if it is not there.

        Raises:
            ModelError: as `Segmenter.from_pretrained`.
        """
        with self._lock:
            found = self._segmenters.pop((model, proposer), None)
            if found is None:
                from ovseg_demo.segmenter import Segmenter

                found = Segmenter.from_pretrained(
                    model, proposer=proposer, device=self.settings.device, settings=self.settings
                )
            self._segmenters[model, proposer] = found
            while len(self._segmenters) > self._kept:
                self._segmenters.pop(next(iter(self._segmenters)))
            return found
