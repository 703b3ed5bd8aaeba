"""Analyse a photo once: its proposals and the features of its regions, kept for the next words.

`segmenter.py` names the regions.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.caching.memory_cache import MemoryCache
from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.text import Templates
from ovseg_demo.devices import choose_device, fast_dtype
from ovseg_demo.imaging import load_image
from ovseg_demo.models import split_arm
from ovseg_demo.naming.classifier import Classifier, PhotoAnalysis, PhotoFeatures
from ovseg_demo.naming.reading import text_progress
from ovseg_demo.progress import Progress, Stopwatch, embedding_progress, with_cpu_fallback
from ovseg_demo.proposals import Proposals, Proposer, find_proposer, proposal_progress, working_image
from ovseg_demo.result import Arm
from ovseg_demo.settings import Settings

__all__ = ["ImageSource", "PhotoAnalyser"]

ImageSource = str | Path | bytes | Image.Image | NDArray[Any]
A = TypeVar("A", bound="PhotoAnalyser")


class PhotoAnalyser:
    """A proposer and the arms of one CLIP, or of several, with what the last photos cost kept.

    An arm of another model has "@" and that model's name behind its own: "context@clip-vit-b-16".

    Args:
        model: name of the model table or path of a checkpoint; an arm is loaded when it is first asked for.
        proposer: gives the masks.
        device: where the classifier runs.
        settings: limits and defaults.
        reload: loads the proposer again for `device=...` if a GPU fails; None = it stays as it is.
        photos: where analysed photos are kept, which other segmenters may share; None = its own.
    """

    def __init__(
        self,
        model: str | Path,
        proposer: Proposer,
        *,
        device: str = "cpu",
        settings: Settings | None = None,
        reload: Callable[..., Proposer] | None = None,
        photos: MemoryCache[PhotoAnalysis] | None = None,
    ) -> None:
        self.model = str(model)
        self.proposer = proposer
        self.device = device
        self._reload = reload
        self._lock = threading.RLock()
        self.settings = settings or Settings()
        self._texts = TextCache(self.settings.cache_dir)
        self._arms: dict[Arm, Classifier] = {}
        if photos is None:
            photos = MemoryCache(self.settings.max_analysed_bytes, self.settings.state_lifetime_s)
        self.photos = photos
        """What is kept of analysed photos, by key; shared with siblings."""
        self._id = secrets.token_hex(8)
        self.notice = ""
        """A sentence that belongs to every result from now on: that a GPU is missing or has failed."""

    @classmethod
    def from_pretrained(
        cls: type[A],
        model: str | Path | None = None,
        *,
        proposer: str | None = None,
        device: str | None = None,
        settings: Settings | None = None,
    ) -> A:
        """Load by names of the model table.

        Args:
            model: a name, or the path of a checkpoint; the settings' if None.
            proposer: a name, or the path of a SAM or of a complete OVSeg file; by default the one that the
                model was published with, or else the settings'. "maskformer" with a model given by its path
                is the segmenter in that file.
            device: where both run; the settings' if None.
            settings: limits and defaults.

        Raises:
            UnknownModelError: there is no such model or proposer.
            DownloadError: weights are not on this machine and cannot be fetched.
            CheckpointError: a weights file is damaged or of another kind.
        """
        settings = settings or Settings()
        model, place = model or settings.model, choose_device(device or settings.device)
        load = partial(find_proposer, model, proposer, settings=settings)
        return cls(model, load(device=place), device=place, settings=settings, reload=load)

    def stream_proposals(self, image: ImageSource) -> Generator[Progress, None, Proposals]:
        """Find the regions that `stream` would name; returns them at the working size.

        Raises:
            ImageError: the photo cannot be used.
        """

        def attempt() -> Generator[Progress, None, Proposals]:
            yield Progress("read", 0.0, "Reading the photo")
            photo = yield from self._analyse(image, ())
            return photo.proposals

        return (yield from with_cpu_fallback(attempt, partial(self._move_to_cpu, self.device)))

    def _analyse(self, image: ImageSource, arms: tuple[Arm, ...]) -> Generator[Progress, None, PhotoAnalysis]:
        """Read and propose, or take what is kept of the same photo."""
        stopwatch, limits = Stopwatch(), self.settings
        pixels = load_image(image, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
        key = self._key_of(pixels)
        stopwatch.mark("read")
        if (kept := self.photos.get(key)) is not None:
            # Its features stay shared with what is kept; the timings are this request's own.
            return replace(kept, timings={"read": stopwatch.seconds["read"], "propose": 0.0})
        photo = yield from self.compute_analysis(pixels, arms)
        photo.timings |= stopwatch.seconds
        photo.key = key
        self.photos.put(key, photo)
        return photo

    def kept_analysis(self, pixels: NDArray[np.uint8]) -> PhotoAnalysis | None:
        """What is kept of a photo of (H, W, 3); None if it has not been analysed or is no longer kept."""
        return self.photos.get(self._key_of(pixels))

    def _key_of(self, pixels: NDArray[np.uint8]) -> str:
        # Segmenters that share the cache find different regions, so the key names the segmenter.
        return self._id + sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()

    def compute_analysis(
        self, pixels: NDArray[np.uint8], arms: tuple[Arm, ...]
    ) -> Generator[Progress, None, PhotoAnalysis]:
        """Find the regions of a photo that is not kept yet.

        A subclass may embed them for `arms` in the same call; here `embed` does it afterwards.
        """
        stopwatch = Stopwatch()
        working = working_image(self.proposer, pixels, self.settings.max_side_px)
        proposals = yield from proposal_progress(self.proposer.stream(working), 0.05, 0.7)
        stopwatch.mark("propose")
        best, timings = proposals.best(self.settings.max_regions), dict(stopwatch.seconds)
        return PhotoAnalysis(pixels, working, best, timings=timings)

    def embed(self, photo: PhotoAnalysis, arm: Arm) -> PhotoFeatures:
        """What one arm makes of the regions."""
        return self.classifier(arm).embed(photo.working, photo.proposals, photo.cache)

    def features_key(self, arm: Arm) -> str:
        """Under which the features of an arm are kept with a photo, which other requests may share."""
        return arm

    def stream_rank(
        self, image: ImageSource, names: Sequence[str], arm: Arm, *, templates: Templates = "single"
    ) -> Generator[Progress, None, tuple[Proposals, NDArray[np.float32]]]:
        """How well each of many names fits each region of a photo, without a merge, step by step.

        Returns:
            The proposals, R of them, and (R, N) probabilities that add up to one for each region.

        Raises:
            ImageError: the photo cannot be used.
        """

        def attempt() -> Generator[Progress, None, tuple[Proposals, NDArray[np.float32]]]:
            photo = yield from self._analyse(image, (arm,))
            key = self.features_key(arm)
            if key not in photo.features:
                yield embedding_progress(photo.proposals.masks, 0.7)
                photo.features[key] = self.embed(photo, arm)
                self.photos.put(photo.key, photo)
            classifier = self.classifier(arm)
            yield from text_progress(classifier, names, templates, 0.8, 1.0)
            return photo.proposals, classifier.rank(photo.features[key].regions, names, templates)

        return (yield from with_cpu_fallback(attempt, partial(self._move_to_cpu, self.device)))

    def sibling(
        self: A, proposer: Proposer, settings: Settings, reload: Callable[..., Proposer] | None = None
    ) -> A:
        """The same arms behind another proposer or other limits; analysed photos stay in the same memory."""
        other = type(self)(
            self.model, proposer, device=self.device, settings=settings, reload=reload, photos=self.photos
        )
        # One lock for one set of arms, so that none is loaded twice.
        other._arms, other._lock = self._arms, self._lock
        other.notice = self.notice
        return other

    def _move_to_cpu(self, device: str) -> bool:
        """Continue on the CPU after a device has failed; False if the device is the CPU."""
        with self._lock:
            if self.device == device:  # else another request has moved it already
                if device == "cpu":
                    return False
                if self._reload is not None:
                    self.proposer = self._reload(device="cpu")
                self.device, self._arms = "cpu", {}
                self.photos.clear()
                self.notice = "The GPU failed, so this ran on the CPU, which takes longer."
            return True

    def add_classifier(self, classifier: Classifier, arm: Arm) -> None:
        """Take a classifier that is loaded already as an arm; siblings do not get it."""
        self._arms = {**self._arms, arm: classifier}

    def region_clip(self, arm: Arm) -> MaskAdaptedCLIP:
        """The CLIP that embeds the regions of photos; names may be embedded by another one."""
        return self.classifier(arm).clip

    def classifier(self, arm: Arm) -> Classifier:
        """The classifier of an arm, loaded when it is first asked for."""
        with self._lock:
            if arm not in self._arms:
                cache_dir = self.settings.cache_dir
                name, model = split_arm(arm, self.model)
                clip = load_clip(model, weights=name, device=self.device, cache_dir=cache_dir)
                clip.compute_in(fast_dtype(torch.device(self.device)))
                self._arms[arm] = Classifier(clip, self._texts)
            return self._arms[arm]
