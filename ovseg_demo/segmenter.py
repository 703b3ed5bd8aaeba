"""The pipeline: a photo and words enter, a segmentation leaves, each step runs once, in order.

Page, command line, evaluator and benchmarks all call it; none has a pipeline of its own.

    segmenter = Segmenter.from_pretrained("ovseg-mini")
    result = segmenter("photo.jpg", "dog, grass, sky")
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.cache import TextCache
from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.text import Templates
from ovseg_demo.devices import choose_device, fast_dtype
from ovseg_demo.imaging import load_image
from ovseg_demo.memory_cache import MemoryCache
from ovseg_demo.merging import merge
from ovseg_demo.models import COMPARED, default_arm
from ovseg_demo.naming.classifier import Classifier, PhotoAnalysis, PhotoFeatures
from ovseg_demo.naming.reading import names_compared, text_progress
from ovseg_demo.output.neighbouring_colours import separate_colours
from ovseg_demo.progress import Progress, Stopwatch, embedding_progress, run_to_end, with_cpu_fallback
from ovseg_demo.proposals import Proposals, Proposer, find_proposer, proposal_progress, working_image
from ovseg_demo.reporting import clip_facts, proposer_facts, segmentation
from ovseg_demo.result import Arm, Comparison, Segmentation, compare
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary

MergeRule = Literal["default", "benchmark", "published-demo"]
ImageSource = str | Path | bytes | Image.Image | NDArray[Any]
Words = str | Iterable[str] | Vocabulary


@dataclass(frozen=True)
class _Options:
    """How one request wants its regions named; None stands for the settings' default."""

    merge: MergeRule | None
    templates: Templates | None
    strictness: float
    ensemble: float | None


class Segmenter:
    """A proposer and the arms of one CLIP, with what the last photos cost kept.

    Args:
        model: name of the model table or path of a checkpoint; an arm is loaded when it is first asked for.
        proposer: gives the masks.
        device: where the classifier runs.
        settings: limits and defaults.
        reload: loads the proposer anew for `device=...`, should a GPU fail; None = it stays as it is.
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
        self._photos = photos
        self._id = secrets.token_hex(8)
        self.notice = ""
        """A sentence that belongs to every result from now on: that a GPU is missing or has failed."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        proposer: str | None = None,
        device: str | None = None,
        settings: Settings | None = None,
    ) -> Segmenter:
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

    def __call__(
        self,
        image: ImageSource,
        names: Words,
        weights: Arm | None = None,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
    ) -> Segmentation:
        """Segment one photo.

        Args:
            image: path, bytes, PIL picture or array.
            names: text as typed, names, or a vocabulary.
            weights: which arm names the regions; the model's best if None.
            merge: how regions become a label map; the settings' default if None.
            templates: sentences around a name; the settings' default if None.
            strictness: added to the log-odds a word needs to be found and to claim a region (default rule).
            ensemble: share of CLIP, 0 to 1, beside a proposer that names its own masks (published rules); 0 =
                CLIP alone; the settings' default if None.

        Raises:
            ImageError: the photo cannot be used.
            VocabularyError: the words cannot be used.
        """
        options = _Options(merge, templates, strictness, ensemble)
        return run_to_end(self._stream_arms(image, names, (weights or default_arm(self.model),), options))[0]

    def stream(
        self,
        image: ImageSource,
        names: Words,
        weights: Arm | None = None,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
    ) -> Generator[Progress, None, Segmentation]:
        """The same in steps: yields progress, returns the result; closing the generator stops the work."""
        options = _Options(merge, templates, strictness, ensemble)
        (result,) = yield from self._stream_arms(image, names, (weights or default_arm(self.model),), options)
        return result

    def compare(
        self,
        image: ImageSource,
        names: Words,
        arms: tuple[Arm, Arm] = COMPARED,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
    ) -> Comparison:
        """Two arms on the same proposals, words, templates and merge rule; by default vanilla and adapted."""
        options = _Options(merge, templates, strictness, ensemble)
        return compare(*run_to_end(self._stream_arms(image, names, arms, options)))

    def stream_compare(
        self,
        image: ImageSource,
        names: Words,
        arms: tuple[Arm, Arm] = COMPARED,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
    ) -> Generator[Progress, None, Comparison]:
        """`compare` step by step."""
        options = _Options(merge, templates, strictness, ensemble)
        first, second = yield from self._stream_arms(image, names, arms, options)
        return compare(first, second)

    def segment_arms(
        self,
        image: ImageSource,
        names: Words,
        arms: Sequence[Arm],
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
    ) -> tuple[Segmentation, ...]:
        """Any number of arms on the same proposals, words, templates and merge rule."""
        options = _Options(merge, templates, strictness, ensemble)
        return run_to_end(self._stream_arms(image, names, tuple(arms), options))

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

    def _stream_arms(
        self, image: ImageSource, names: Words, arms: tuple[Arm, ...], options: _Options
    ) -> Generator[Progress, None, tuple[Segmentation, ...]]:
        """The arms one after the other; begun again on the CPU if a GPU fails."""
        leave = partial(self._move_to_cpu, self.device)
        return (yield from with_cpu_fallback(lambda: self._attempt(image, names, arms, options), leave))

    def _attempt(
        self, image: ImageSource, names: Words, arms: tuple[Arm, ...], options: _Options
    ) -> Generator[Progress, None, tuple[Segmentation, ...]]:
        started, limits = time.perf_counter(), self.settings
        vocabulary = Vocabulary.of(names, max_names=limits.max_names, max_name_length=limits.max_name_length)
        yield Progress("read", 0.0, "Reading the photo")
        photo = yield from self._analyse(image, arms)
        results = []
        for number, arm in enumerate(arms):
            timings = dict(photo.timings)
            progress = 0.7 + 0.3 * number / len(arms)
            if arm not in photo.features:
                yield embedding_progress(photo.proposals.masks, progress)
                photo.features[arm] = self.embed(photo, arm)
                timings |= photo.features[arm].timings
                self._photos.put(photo.key, photo)
            shares = progress + 0.2 / len(arms), progress + 0.29 / len(arms)
            results.append((yield from self._decide(photo, arm, vocabulary, options, timings, shares)))
        total = time.perf_counter() - started
        yield Progress("merge", 1.0, f"Done in {total:.1f} s")
        return separate_colours([replace(r, timings={**r.timings, "total": total}) for r in results])

    def _analyse(self, image: ImageSource, arms: tuple[Arm, ...]) -> Generator[Progress, None, PhotoAnalysis]:
        """Read and propose, or take what is kept of the same photo."""
        stopwatch, limits = Stopwatch(), self.settings
        pixels = load_image(image, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
        # Segmenters that share the cache find different regions, so the key names the segmenter.
        key = self._id + sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        stopwatch.mark("read")
        if (kept := self._photos.get(key)) is not None:
            # Its features stay shared with what is kept; the timings are this request's own.
            return replace(kept, timings={"read": stopwatch.seconds["read"], "propose": 0.0})
        photo = yield from self.examine(pixels, arms)
        photo.timings |= stopwatch.seconds
        photo.key = key
        self._photos.put(key, photo)
        return photo

    def examine(
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
            if arm not in photo.features:
                yield embedding_progress(photo.proposals.masks, 0.7)
                photo.features[arm] = self.embed(photo, arm)
                self._photos.put(photo.key, photo)
            classifier = self.classifier(arm)
            yield from text_progress(classifier, names, templates, 0.8, 1.0)
            return photo.proposals, classifier.rank(photo.features[arm].regions, names, templates)

        return (yield from with_cpu_fallback(attempt, partial(self._move_to_cpu, self.device)))

    def sibling(
        self, proposer: Proposer, settings: Settings, reload: Callable[..., Proposer] | None = None
    ) -> Segmenter:
        """The same arms behind another proposer or other limits; analysed photos stay in the same memory."""
        other = type(self)(
            self.model, proposer, device=self.device, settings=settings, reload=reload, photos=self._photos
        )
        # One lock for one set of arms, so that none is loaded twice.
        other._arms, other._lock = self._arms, self._lock
        other.notice = self.notice
        return other

    def _move_to_cpu(self, device: str) -> bool:
        """Goes on on the CPU after a failure on a device; False if that is the CPU."""
        with self._lock:
            if self.device == device:  # else another request has moved it already
                if device == "cpu":
                    return False
                if self._reload is not None:
                    self.proposer = self._reload(device="cpu")
                self.device, self._arms = "cpu", {}
                self._photos.clear()
                self.notice = "The GPU failed, so this ran on the CPU, which takes longer."
            return True

    def use(self, classifier: Classifier, arm: Arm) -> None:
        """Take a classifier that is loaded already as an arm."""
        self._arms[arm] = classifier

    def region_clip(self, arm: Arm) -> MaskAdaptedCLIP:
        """The CLIP that embeds the regions of photos; names may be embedded by another one."""
        return self.classifier(arm).clip

    def classifier(self, arm: Arm) -> Classifier:
        """The classifier of an arm, loaded when it is first asked for."""
        with self._lock:
            if arm not in self._arms:
                cache_dir = self.settings.cache_dir
                clip = load_clip(self.model, weights=arm, device=self.device, cache_dir=cache_dir)
                clip.compute_in(fast_dtype(torch.device(self.device)))
                self._arms[arm] = Classifier(clip, self._texts)
            return self._arms[arm]

    def _decide(
        self,
        photo: PhotoAnalysis,
        arm: Arm,
        vocabulary: Vocabulary,
        options: _Options,
        timings: Mapping[str, float],
        shares: tuple[float, float],
    ) -> Generator[Progress, None, Segmentation]:
        """Name the regions; `shares` of the request are done before and after the words are read."""
        stopwatch, classifier = Stopwatch(), self.classifier(arm)
        rule, templates = options.merge or self.settings.merge, options.templates or self.settings.templates
        numbers = classifier.merge_settings.stricter(options.strictness)
        ensemble = self.settings.ensemble if options.ensemble is None else options.ensemble
        features, queries, hidden = photo.features[arm], photo.proposals.queries, rule == "default"
        names = names_compared(vocabulary, with_hidden=hidden)
        yield from text_progress(classifier, names, templates, *shares)
        scores = classifier.score(features, vocabulary, templates, queries, with_hidden=hidden)
        stopwatch.mark("text")
        size = photo.image.shape[0], photo.image.shape[1]
        merged = merge(rule, scores, photo.proposals, vocabulary.names, numbers, ensemble=ensemble, size=size)
        stopwatch.mark("merge")
        used = {
            "merge": rule,
            "templates": templates,
            "vocabulary": vocabulary.text,
            "max_side_px": self.settings.max_side_px,
            "max_regions": self.settings.max_regions,
            "mask_threshold": self.settings.mask_threshold,
            "strictness": options.strictness,
            "ensemble": ensemble,
            "merge_settings": asdict(numbers),
            **({"notice": self.notice} if self.notice else {}),
        }
        clip = clip_facts(self.model, arm, self.region_clip(arm))
        models = {"clip": clip, "proposer": proposer_facts(self.proposer)}
        spent = {"crop": 0.0, "embed": 0.0, **timings, **stopwatch.seconds}
        return segmentation(photo, arm, vocabulary, merged, timings=spent, models=models, settings=used)
