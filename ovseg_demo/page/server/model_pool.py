"""The models of the page, loaded when first needed and shared by all visitors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ovseg_demo.caching.memory_cache import MemoryCache
from ovseg_demo.errors import SettingsError
from ovseg_demo.page.server.request_tracker import RequestTracker
from ovseg_demo.page.server.result_store import ResultStore
from ovseg_demo.result import Segmentation
from ovseg_demo.settings import Settings

if TYPE_CHECKING:
    from ovseg_demo.proposals import Proposer
    from ovseg_demo.segmenter import Segmenter

__all__ = ["ON_ZERO_GPU", "ModelPool", "Models"]

ON_ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


@dataclass(frozen=True)
class Models:
    """Which models work on a photo, and how closely they look."""

    model: str
    """Name of the CLIP."""
    proposer: str
    density: str = "normal"
    """How many masks the proposer looks for."""
    max_side_px: int = Settings.max_side_px
    """Longer side of the picture they work on."""

    @classmethod
    def of(cls, result: Segmentation) -> Models:
        """The models that a result was made with, which need not be those that are chosen now."""
        proposer = result.models["proposer"]
        return cls(
            model=result.models["clip"]["name"],
            proposer=proposer["name"],
            density=proposer.get("density", cls.density),
            max_side_px=result.settings["max_side_px"],
        )


class ModelPool:
    """Keeps the segmenters that were used last; torch is imported with the first one.

    Args:
        settings: limits, default model and device.
        kept: how many combinations of models stay in memory. Those that have a model in common share it.
    """

    def __init__(self, settings: Settings, *, kept: int = 3) -> None:
        self.settings = settings
        self._kept = kept
        self._lock = threading.Lock()
        self._segmenters: dict[Models, Segmenter] = {}
        self.tracker = RequestTracker(settings)
        self.result_store = ResultStore(settings)
        self.photos: MemoryCache[Any] = MemoryCache(settings.max_analysed_bytes, settings.state_lifetime_s)
        self.tracker.gauge("analysed_bytes", lambda: self.photos.kept_bytes)
        self.tracker.gauge("kept_bytes", lambda: self.result_store.kept_bytes)

    @property
    def default(self) -> Models:
        """What the settings name."""
        own = self.settings
        return Models(own.model, own.proposer, max_side_px=own.max_side_px)

    def expire(self) -> None:
        """Drop what has been kept of visitors' photos for its lifetime."""
        self.photos.expire()
        self.result_store.expire()

    def has(self, models: Models) -> bool:
        """Whether `get` would answer at once."""
        return models in self._segmenters

    def get(self, models: Models) -> Segmenter:
        """The segmenter for these models, loaded if it is not there.

        Raises:
            ModelError: as `Segmenter.from_pretrained`.
        """
        with self._lock:
            found = self._segmenters.pop(models, None) or self._made(models)
            self._segmenters[models] = found
            while len(self._segmenters) > self._kept:
                self._segmenters.pop(next(iter(self._segmenters)))
            return found

    def _made(self, models: Models) -> Segmenter:
        # First of all: on ZeroGPU nothing may look for a GPU before the package `spaces` is there.
        kind = segmenter_type()
        from ovseg_demo.devices import choose_device

        place, notice = self.settings.device, ""
        try:
            place = choose_device(place)
        except SettingsError:
            place, notice = "cpu", f"There is no {place} on this machine, so this ran on the CPU."
        limits = replace(self.settings, max_side_px=models.max_side_px)
        load = self._loader(models)
        proposer = self._loaded(models) or load(device=place)
        for key, other in self._segmenters.items():
            if key.model == models.model:
                return other.sibling(proposer, limits, load)
        made = kind(models.model, proposer, device=place, settings=limits, reload=load, photos=self.photos)
        made.notice = notice
        return made

    def _loaded(self, models: Models) -> Proposer | None:
        """The same proposer, if one of the segmenters has it."""
        for key, other in self._segmenters.items():
            if (key.proposer, key.density) == (models.proposer, models.density):
                return other.proposer
        return None

    def _loader(self, models: Models) -> Callable[..., Proposer]:
        """Load the proposer for `device=...`."""
        from ovseg_demo.proposals import load_proposer

        return partial(
            load_proposer,
            models.proposer,
            density=models.density,
            mask_threshold=self.settings.mask_threshold,
            cache_dir=self.settings.cache_dir,
        )


def segmenter_type() -> type[Segmenter]:
    """The segmenter for this machine: on ZeroGPU the one that works in the GPU's process."""
    if ON_ZERO_GPU:
        from ovseg_demo.page.server.zero_gpu import ZeroGpuSegmenter

        return ZeroGpuSegmenter
    from ovseg_demo.segmenter import Segmenter

    return Segmenter
